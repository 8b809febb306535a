"""What scripted experts share: reading a grasp from the true state, and closing the hand on it.

An expert keeps no memory. Every action follows from the present state, so a slip or a shove is
answered by the phase that the new state belongs to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    from jaxtyping import Float32, Float64

OPEN, CLOSE = -1.0, 1.0
HELD_WIDTH = 0.078  # an open hand is wider than this
_STEP_M = 0.05  # what 1.0 of a translation means
_STEP_RAD = 0.5
_NEAR = 0.012
_LOOSE = 0.02
_DEPTH = 0.006
_FLOOR = 0.008
_PALM = 0.026  # how far below the target's top the finger tips come before the palm is on it
_SHUT = 0.004
_FINGER = 0.022  # how far below the target's top the finger tips close
_FITS_M = 0.055
_REACH_M, _TIP_M = 0.05, 0.022  # from the middle of an open hand to a finger, and its half breadth
_DETOUR_M = 0.02  # how much wider a side may be that keeps a finger clear of something


class Snapshot(NamedTuple):
    """What an expert reads. Positions in metres.

    Attributes:
        hand: between the finger tips.
        width: opening of the gripper, m.
        target: the object asked for.
        goal: where it should go.
        touched: fingers that touch the target, 0 to 2.
        turn: rotation about the vertical, rad, that puts the fingers across the target's narrow
            side.
        height: height of the target's highest point.
        low: height of its lowest point.
        table: height of what it stands on at first.
        tilt: rotation about x and y, rad, that turns the hand straight down.
        centre: what must come over the goal, when that is not the target's middle: one is taken by
            its handle.
        align: rotation about the vertical, rad, that the target needs to fit its goal.
    """

    hand: Float64[np.ndarray, " 3"]
    width: float
    target: Float64[np.ndarray, " 3"]
    goal: Float64[np.ndarray, " 3"]
    touched: int
    turn: float
    height: float
    low: float = 0.0
    table: float = 0.0
    tilt: tuple[float, float] = (0.0, 0.0)
    centre: Float64[np.ndarray, " 3"] | None = None
    align: float = 0.0

    @property
    def middle(self) -> Float64[np.ndarray, " 3"]:
        """What must come over the goal."""
        return self.target if self.centre is None else self.centre

    @property
    def holds(self) -> bool:
        """Whether the target is between the fingers."""
        return self.touched == 2 and self.width < HELD_WIDTH


def fetch(s: Snapshot) -> Float32[np.ndarray, " 7"]:
    """The action towards holding the target: over it, down, close."""
    over = s.target[:2] - s.hand[:2]
    grasp = max(min(s.target[2], s.height - _FINGER), s.height - _PALM, s.table + _FLOOR)
    below = grasp - s.hand[2]
    # A hand that is down already forgives more: it pushes what it will close on anyway.
    down = s.hand[2] < s.height + 0.02
    if np.hypot(*over) > (_LOOSE if down else _NEAR) or abs(s.turn) > (0.5 if down else 0.1):
        clearance = s.height + 0.06 - s.hand[2]
        sideways = np.hypot(*over) < 0.03 or clearance < 0.03
        return act(over if sideways else over * 0, clearance, s.turn, OPEN, s.tilt)
    if s.width < _SHUT:  # closed on nothing
        return act(over, 0.03, s.turn, OPEN, s.tilt)
    if below < -_DEPTH:
        return act(over, below, s.turn, OPEN, s.tilt)
    return act(over, below, 0.0, CLOSE, s.tilt)


def act(
    sideways: Float64[np.ndarray, " 2"],
    up: float,
    turn: float,
    gripper: float,
    tilt: tuple[float, float] = (0.0, 0.0),
) -> Float32[np.ndarray, " 7"]:
    """Metres and radians as one action of an operational-space controller."""
    move = np.clip(np.array([*sideways, up]) * 2.0 / _STEP_M, -1.0, 1.0)
    twist = np.clip(np.array([*tilt, turn]) / _STEP_RAD, -0.5, 0.5)
    return np.array([*move, *twist, gripper], np.float32)


def corners(model: Any, data: Any, geoms: Iterable[int]) -> Float64[np.ndarray, "points 3"]:
    """Corners of the boxes around some geoms, in the world."""
    points = []
    signs = np.array(np.meshgrid(*[(-1, 1)] * 3)).reshape(3, -1).T
    for geom in geoms:
        centre, half = model.geom_aabb[geom][:3], model.geom_aabb[geom][3:]
        local = centre + signs * half
        points.append(local @ data.geom_xmat[geom].reshape(3, 3).T + data.geom_xpos[geom])
    return np.concatenate(points)


def narrow_turn(
    points: Float64[np.ndarray, "k 2"],
    closing: Float64[np.ndarray, " 3"],
    others: Float64[np.ndarray, "n 2"] | None = None,
    fits: float = _FITS_M,
) -> float:
    """The smallest turn that lays the fingers' line of motion along the narrow side.

    None where the object fits already, so that a round one never makes the hand turn.

    Args:
        points: of the object, from above.
        closing: from finger to finger now.
        others: points of what stands beside it; a turn that puts a finger there is shunned.
        fits: width, m, that is taken as it comes.
    """
    now = np.arctan2(closing[1], closing[0])
    turns = np.radians(np.arange(-90, 91, 5))
    lines = np.stack([np.cos(now + turns), np.sin(now + turns)])
    width = np.ptp(points @ lines, axis=0)
    blocked = np.zeros(len(turns))
    if others is not None and len(others):
        blocked = _blocked((points.min(0) + points.max(0)) / 2, lines.T, others)
    middle = len(turns) // 2
    if width[middle] <= max(fits, width.min() + 0.008) and not blocked[middle]:
        return 0.0
    return float(turns[np.argmin(width + 0.004 * np.abs(turns) + _DETOUR_M * blocked)])


def _blocked(
    centre: Float64[np.ndarray, " 2"],
    lines: Float64[np.ndarray, "turns 2"],
    others: Float64[np.ndarray, "n 2"],
) -> Float64[np.ndarray, " turns"]:
    """How many fingers of an open hand, 0 to 2, would come down on something else."""
    tips = centre + np.array([-_REACH_M, _REACH_M])[:, None, None] * lines
    gaps = np.linalg.norm(tips[:, :, None] - others, axis=-1).min(axis=-1)
    return (gaps < _TIP_M).sum(axis=0).astype(np.float64)
