"""Peak memory: of the GPU for a stretch of work, of this process for a whole run.

Cells answer in turn in one process, whose peak is that of the largest of them: on a CPU there is no
figure of one cell.
"""

from __future__ import annotations

from pathlib import Path

import torch

_STATUS = Path("/proc/self/status")


def reset_peak(device: str) -> None:
    """Begin a stretch on a GPU."""
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()


def peak_mb(device: str) -> float | None:
    """Peak of the GPU since `reset_peak`, MB (10^6 bytes); None on a CPU."""
    return torch.cuda.max_memory_allocated() / 1e6 if device.startswith("cuda") else None


def process_peak_mb() -> float | None:
    """Peak of this process since it began, MB, libraries included; None where nobody tells."""
    try:
        lines = _STATUS.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    found = (line.split()[1] for line in lines if line.startswith("VmHWM:"))
    return next((int(kib) * 1024 / 1e6 for kib in found), None)
