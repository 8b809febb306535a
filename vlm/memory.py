"""Peak memory of a stretch of work: of the GPU, or of this process as the kernel counts it."""

from __future__ import annotations

from pathlib import Path

import torch

_CLEAR, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")


def reset_peak(device: str) -> None:
    """Begin a stretch."""
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()
        return
    try:
        _CLEAR.write_text("5", encoding="ascii")
    except OSError:
        return


def peak_mb(device: str) -> float | None:
    """Peak since `reset_peak`, MB (10^6 bytes); None where the system does not tell.

    On a CPU it is the whole process, interpreter and libraries included.
    """
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated() / 1e6
    try:
        lines = _STATUS.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    found = (line.split()[1] for line in lines if line.startswith("VmHWM:"))
    return next((int(kib) * 1024 / 1e6 for kib in found), None)
