"""Which part of its task an episode is in, by rules that suites share. From the state alone.

What is taken into the hand: `reach`, `grasp`, `carry`, `place`. What is pushed, pulled, turned or
wiped: `reach`, `act`. Something that slips out of the hand takes the episode back to `grasp`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from jaxtyping import Float64, Int64

NEAR_M = 0.03  # between the finger tips and the boxes around what they should take
ACT_M = 0.06  # the same, around what is pushed, pulled, turned or wiped
OVER_M = 0.06  # between a thing and where it should go
MOVED_M = 0.02  # a thing that is further from its first place than this was moved


def picking(*, held: bool, near: bool, over: bool = False, rests: bool = False) -> str:
    """The phase of picking something up and bringing it somewhere.

    Args:
        held: both fingers touch it.
        near: the hand is at it, see `at`.
        over: it is over its goal, or near it; False where it has none.
        rests: it was brought to its goal.
    """
    if held:
        return "place" if over else "carry"
    if rests:
        return "place"
    return "grasp" if near else "reach"


def acting(*, near: bool) -> str:
    """The phase of what no hand takes up: `act` while the hand is at it."""
    return "act" if near else "reach"


def at(
    model: Any,
    data: Any,
    point: Float64[np.ndarray, " 3"],
    robot: Int64[np.ndarray, " n"],
    thing: Int64[np.ndarray, " k"],
    within: float,
) -> bool:
    """Whether a hand is at a thing: the robot touches it, or its finger tips are close.

    Args:
        model: a `mujoco.MjModel`.
        data: its `mujoco.MjData`.
        point: between the finger tips, m.
        robot: geoms of arm and hand.
        thing: geoms of the thing.
        within: what is close, m.
    """
    return gap(model, data, thing, point) < within or touching(data, robot, thing)


def touching(data: Any, one: Int64[np.ndarray, " n"], other: Int64[np.ndarray, " k"]) -> bool:
    """Whether any of some geoms touches any of others."""
    pairs = np.stack((data.contact.geom1, data.contact.geom2))
    return bool((np.isin(pairs, one) & np.isin(pairs, other)[::-1]).any())


def gap(
    model: Any, data: Any, geoms: Int64[np.ndarray, " k"], point: Float64[np.ndarray, " 3"]
) -> float:
    """Metres from a point to the nearest of the boxes around some geoms; infinite without any."""
    if not len(geoms):
        return float("inf")
    turn = data.geom_xmat[geoms].reshape(-1, 3, 3)
    local = np.einsum("kji,kj->ki", turn, point - data.geom_xpos[geoms])
    box = model.geom_aabb[geoms]
    outside = np.maximum(np.abs(local - box[:, :3]) - box[:, 3:], 0.0)
    return float(np.linalg.norm(outside, axis=1).min())
