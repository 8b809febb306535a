"""Pairing of messages: the newest complete set wins, in a slot of one.

Pictures are paired when the newest of every camera lie within the contract's skew; the state is the
one measured nearest to them. Messages are kept undecoded: pixels are touched once, off the thread
that receives them, and only when somebody will look.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from policy.robot.ages import age_fault

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import Float32

    from policy.contract import Age, Contract

RING = 128  # messages of state that are remembered, to find the one nearest to the pictures


class Stamped(NamedTuple):
    """A message, its stamp, and when it arrived, seconds on the node's clock.

    Attributes:
        value: what a measurement says, where it was decoded to be checked; pictures wait.
    """

    stamp_s: float
    arrived_s: float
    message: Any
    value: Float32[np.ndarray, " k"] | None = None


class Paired(NamedTuple):
    """One observation's messages: per view, and per source of state; stamped by the newest."""

    stamp_s: float
    skew_ms: float
    images: tuple[Stamped, ...]
    states: tuple[Stamped, ...]


@dataclass
class Pairing:
    """Newest messages of every source. Bounded: a slot per camera, a short ring per state.

    Args:
        contract: names the sources, tolerances and ages.
    """

    contract: Contract
    slot: Paired | None = None
    skew_ms: float = 0.0
    newest: dict[str, Stamped] = field(default_factory=dict)
    rings: dict[str, deque[Stamped]] = field(default_factory=dict)

    def image(self, view: str, seen: Stamped) -> str | None:
        """Take one picture; why it was dropped, or None."""
        camera = next(c for c in self.contract.cameras if c.view == view)
        fault = self._fault(seen, camera.age) or self._order(self.newest.get(view), seen)
        if fault is None:
            self.newest[view] = seen
            self._pair()
        return fault

    def state(self, topic: str, seen: Stamped) -> str | None:
        """Take one measurement; why it was dropped, or None."""
        source = next(s for s in self.contract.state if s.topic == topic)
        ring = self.rings.setdefault(topic, deque(maxlen=RING))
        fault = self._fault(seen, source.age) or self._order(ring[-1] if ring else None, seen)
        if fault is None:
            ring.append(seen)
            self._pair()
        return fault

    def clear(self) -> None:
        """Forget everything: a new clock, a new robot pose, a new life."""
        self.slot = None
        self.newest.clear()
        self.rings.clear()

    def missing(self, now_s: float) -> list[str]:
        """Every source that is silent or too old at `now_s`, as sentences."""
        out = []
        for camera in self.contract.cameras:
            seen = self.newest.get(camera.view)
            out += self._silent(f"camera {camera.view}", seen, camera.age, now_s)
        for source in self.contract.state:
            ring = self.rings.get(source.topic)
            seen = ring[-1] if ring else None
            out += self._silent(f"state {source.topic}", seen, source.age, now_s)
        return out or self._unpaired(now_s)

    def _unpaired(self, now_s: float) -> list[str]:
        """Everything speaks, but nothing fits together."""
        most_ms = max(camera.age.max_ms for camera in self.contract.cameras)
        if self.slot is not None and (now_s - self.slot.stamp_s) * 1e3 <= most_ms:
            return []
        return [
            f"pictures and state are {self.skew_ms:.0f} ms apart, allowed are "
            f"{self.contract.skew_ms:g} ms: synchronise the sources"
        ]

    def _silent(self, what: str, seen: Stamped | None, age: Age, now_s: float) -> list[str]:
        if seen is None:
            return [f"{what}: nothing received"]
        old_ms = (now_s - self._stamp(seen)) * 1e3
        if old_ms > age.max_ms:
            return [f"{what}: silent for {old_ms:.0f} ms, allowed are {age.max_ms:g} ms"]
        return []

    def _stamp(self, seen: Stamped) -> float:
        return seen.arrived_s if seen.stamp_s == 0.0 else seen.stamp_s

    def _fault(self, seen: Stamped, age: Age) -> str | None:
        return age_fault(
            seen.stamp_s, seen.arrived_s, age, allow_unstamped=self.contract.allow_unstamped
        )

    def _order(self, last: Stamped | None, seen: Stamped) -> str | None:
        if last is not None and self._stamp(seen) <= self._stamp(last):
            return "is not newer than the one before"
        return None

    def _pair(self) -> None:
        views = [camera.view for camera in self.contract.cameras]
        topics = [source.topic for source in self.contract.state]
        if any(v not in self.newest for v in views) or any(not self.rings.get(t) for t in topics):
            return
        images = tuple(self.newest[view] for view in views)
        stamps = [self._stamp(seen) for seen in images]
        self.skew_ms = (max(stamps) - min(stamps)) * 1e3
        if self.skew_ms > self.contract.skew_ms:
            return
        middle = (max(stamps) + min(stamps)) / 2
        states = tuple(
            min(self.rings[t], key=lambda seen: abs(self._stamp(seen) - middle)) for t in topics
        )
        apart = max((abs(self._stamp(seen) - middle) for seen in states), default=0.0)
        if apart * 1e3 > self.contract.skew_ms:
            self.skew_ms = max(self.skew_ms, apart * 1e3)
            return
        self.slot = Paired(max(stamps), self.skew_ms, images, states)
