"""Commands as values, whatever middleware carries them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from jaxtyping import Float64


@dataclass(frozen=True)
class Twist:
    """A speed of the hand: linear m/s and angular rad/s, in `frame_id`."""

    stamp_s: float
    frame_id: str
    values: Float64[np.ndarray, 6]

    @property
    def still(self) -> bool:
        """Whether it asks for no motion at all."""
        return not self.values.any()


@dataclass(frozen=True)
class Trajectory:
    """Joint positions over time, counted from the stamp; no points means: stop and hold."""

    stamp_s: float
    joints: tuple[str, ...]
    times_s: Float64[np.ndarray, " k"]
    positions: Float64[np.ndarray, "k j"]
    velocities: Float64[np.ndarray, "k j"] | None = None


Command: TypeAlias = Twist | Trajectory


def zero_twist(stamp_s: float, frame_id: str) -> Twist:
    """No motion."""
    return Twist(stamp_s, frame_id, np.zeros(6))


def halt(stamp_s: float, joints: tuple[str, ...]) -> Trajectory:
    """An empty trajectory: the joint trajectory controller drops what it has and holds."""
    return Trajectory(stamp_s, joints, np.zeros(0), np.zeros((0, len(joints))))
