"""What a node tells about itself: rates, counts, and one level per thing that can fail."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from dataclasses import dataclass, field
from enum import IntEnum
from typing import NamedTuple

WINDOW = 6  # arrivals that a rate is measured over
NEWEST = 512  # values that percentiles are taken of


class Level(IntEnum):
    """As in diagnostic_msgs/DiagnosticStatus."""

    OK = 0
    WARN = 1
    ERROR = 2
    STALE = 3


class Check(NamedTuple):
    """One line of diagnostics."""

    name: str
    level: Level
    message: str
    values: dict[str, str]


@dataclass
class Rate:
    """Arrivals per second over the last few."""

    times: deque[float] = field(default_factory=lambda: deque(maxlen=WINDOW))

    def add(self, now_s: float) -> None:
        """Something arrived."""
        self.times.append(now_s)

    def hz(self) -> float:
        """The rate; 0 before there is one."""
        span = self.times[-1] - self.times[0] if len(self.times) > 1 else 0.0
        return (len(self.times) - 1) / span if span > 0 else 0.0


@dataclass
class Latest:
    """The newest of a stream of numbers, bounded; asking for a percentile costs nothing."""

    values: deque[float] = field(default_factory=lambda: deque(maxlen=NEWEST))
    _ranked: list[float] = field(default_factory=list)

    def add(self, value: float) -> None:
        """Remember one."""
        if len(self.values) == self.values.maxlen:
            del self._ranked[bisect_left(self._ranked, self.values[0])]
        self.values.append(value)
        insort(self._ranked, value)

    def percentile(self, part: float) -> float:
        """The nearest-rank percentile, `part` in [0, 1]; 0 before there is a value."""
        ranked = self._ranked
        return ranked[min(len(ranked) - 1, int(part * len(ranked)))] if ranked else 0.0


@dataclass
class Ledger:
    """Counts, and the last sentence of every kind."""

    counters: dict[str, int] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)

    def count(self, what: str) -> None:
        """One more."""
        self.counters[what] = self.counters.get(what, 0) + 1

    def drop(self, what: str, reason: str) -> None:
        """Something was dropped, and why."""
        self.count(f"{what}_dropped")
        self.notes[what] = reason
