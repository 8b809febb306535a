"""How long an answer may take: late is dropped, hung is a fault. Durations are monotonic time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Verdict = Literal["idle", "ok", "late", "hung"]


@dataclass
class Watchdog:
    """Watches the one question that may be under way.

    Args:
        deadline_s: an answer later than this is dropped.
        hang_s: no answer after this is a hang.
    """

    deadline_s: float
    hang_s: float
    number: int = 0
    began_s: float | None = None
    missed: int = 0
    _late: bool = False

    def begin(self, mono_s: float) -> int:
        """A question was asked; its number."""
        self.number += 1
        self.began_s, self._late = mono_s, False
        return self.number

    def end(self, number: int, mono_s: float) -> bool:
        """The answer came; whether it may be used."""
        if number != self.number or self.began_s is None:
            return False
        in_time = self.check(mono_s) == "ok"
        self.began_s = None
        return in_time

    def check(self, mono_s: float) -> Verdict:
        """How the present question stands; a missed deadline is counted once."""
        if self.began_s is None:
            return "idle"
        waited_s = mono_s - self.began_s
        if waited_s <= self.deadline_s:
            return "ok"
        if not self._late:
            self._late = True
            self.missed += 1
        return "late" if waited_s <= self.hang_s else "hung"
