"""How much memory is free."""

from __future__ import annotations

from pathlib import Path

MEMINFO = Path("/proc/meminfo")


def free_bytes() -> int | None:
    """Host memory that can be had without swapping; None where the system does not tell."""
    try:
        lines = MEMINFO.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    for line in lines:
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None


def mebibytes(count: int) -> str:
    """`12.3 MiB`."""
    return f"{count / 2**20:.1f} MiB"
