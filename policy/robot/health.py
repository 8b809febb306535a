"""What a node tells about itself: rates, counts, and one level per thing that can fail."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from enum import IntEnum
from typing import NamedTuple

WINDOW = 6  # arrivals that a rate is measured over


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
    """The newest of a stream of numbers, bounded, and its percentiles."""

    values: deque[float] = field(default_factory=lambda: deque(maxlen=512))

    def add(self, value: float) -> None:
        """Remember one."""
        self.values.append(value)

    def percentile(self, part: float) -> float:
        """The nearest-rank percentile, `part` in [0, 1]; 0 before there is a value."""
        ranked = sorted(self.values)
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
