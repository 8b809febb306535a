"""Time of what runs in between, without making an accelerator wait."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator


class Timer:
    """Adds up stretches of time; those on a GPU are read when asked for.

    Attributes:
        known_ms: what is known without waiting.
    """

    def __init__(self) -> None:
        self.known_ms = 0.0
        self._pending: list[tuple[Any, Any]] = []

    @contextmanager
    def on(self, device: torch.device) -> Iterator[None]:
        """Time what runs on a device."""
        if device.type == "cuda":
            ends = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            ends[0].record()
            yield
            ends[1].record()
            self._pending.append(ends)
            return
        start = time.perf_counter()
        yield
        self.known_ms += (time.perf_counter() - start) * 1e3

    def total_ms(self) -> float:
        """All of it; waits for the GPU."""
        for start, end in self._pending:
            end.synchronize()
            self.known_ms += start.elapsed_time(end)
        self._pending = []
        return self.known_ms
