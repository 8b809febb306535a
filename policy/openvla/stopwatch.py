"""Wall time by phase, with the device idle at every mark."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Stopwatch:
    """Adds up what each phase took; `mark` ends the running phase.

    Args:
        synchronize: waits until the device has finished, e.g. `torch.cuda.synchronize`; None on a
            CPU.
    """

    def __init__(self, synchronize: Callable[[], None] | None = None) -> None:
        self.phase_ms: dict[str, float] = {}
        self.spans: list[tuple[str, float, float]] = []
        self._synchronize = synchronize
        self._start = self._last = time.perf_counter()

    def mark(self, phase: str) -> None:
        """The time since the last mark belongs to `phase`."""
        if self._synchronize is not None:
            self._synchronize()
        now = time.perf_counter()
        began_ms, ended_ms = (self._last - self._start) * 1e3, (now - self._start) * 1e3
        self.phase_ms[phase] = self.phase_ms.get(phase, 0.0) + ended_ms - began_ms
        self.spans.append((phase, began_ms, ended_ms))
        self._last = now

    @property
    def total_ms(self) -> float:
        """Time from the start to the last mark."""
        return (self._last - self._start) * 1e3
