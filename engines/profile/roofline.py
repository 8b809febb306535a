"""Lower bounds of a stage's time from what it must compute and what it must move.

    time >= max(2 * MACs / rate, bytes / bandwidth)

The bound is never reached: kernels start late, leave caches cold, and use part of the units. What
it tells is where pruning can help (compute-bound stages) and where it cannot (a stage that waits
for its weights reads as many of them for fewer tokens).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable

Bound = Literal["compute", "memory"]


@dataclass(frozen=True)
class Stage:
    """Work of one stage.

    Attributes:
        name: the stage.
        macs: multiply-accumulates.
        weight_bytes: weights that it reads.
        data_bytes: everything else that it must read and write.
    """

    name: str
    macs: float
    weight_bytes: float
    data_bytes: float

    @property
    def bytes(self) -> float:
        """All that it must move."""
        return self.weight_bytes + self.data_bytes


@dataclass(frozen=True)
class Peak:
    """What a device can do at most.

    Attributes:
        name: the device.
        flop_per_s: floating-point operations per second at the precision in question, dense.
        byte_per_s: memory bandwidth.
    """

    name: str
    flop_per_s: float
    byte_per_s: float

    def __post_init__(self) -> None:
        """Refuse a device that does nothing.

        Raises:
            ValueError: for a rate that is not positive.
        """
        if not (self.flop_per_s > 0 and self.byte_per_s > 0):
            raise ValueError(f"{self.name}: rates must be positive, they are {self}")


@dataclass(frozen=True)
class StageBound:
    """The least time that a stage can take on a device.

    Attributes:
        name: the stage.
        compute_ms: least time to compute.
        memory_ms: least time to move.
    """

    name: str
    compute_ms: float
    memory_ms: float

    @property
    def ms(self) -> float:
        """The larger of the two."""
        return max(self.compute_ms, self.memory_ms)

    @property
    def limited_by(self) -> Bound:
        """Which of the two it is."""
        return "compute" if self.compute_ms >= self.memory_ms else "memory"


def bound(stage: Stage, peak: Peak) -> StageBound:
    """The least time of one stage."""
    return StageBound(
        stage.name,
        2 * stage.macs / peak.flop_per_s * 1e3,
        stage.bytes / peak.byte_per_s * 1e3,
    )


def bounds(stages: Iterable[Stage], peak: Peak) -> list[StageBound]:
    """The least time of every stage that has work to do."""
    return [bound(stage, peak) for stage in stages if stage.macs or stage.bytes]


def query_ms(found: Iterable[StageBound]) -> float:
    """The least time of a query whose stages run one after the other."""
    return sum(each.ms for each in found)
