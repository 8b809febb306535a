"""A scripted expert for lifting, stacking, placing groceries in bins, and nuts on pegs."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sim.suites.grasp import CLOSE, OPEN, act, fetch

if TYPE_CHECKING:
    from jaxtyping import Float32, Float64

    from sim.suites.grasp import Snapshot
    from sim.suites.robosuite.spec import Task


class Way(NamedTuple):
    """How something is brought to its goal. Metres; heights are of its lowest point over the goal.

    Attributes:
        over: height at which it travels.
        near: how close to its place it must be before it is lowered.
        release: height below which it is let go.
        aim: height that is steered for.
        done: how close it must be, let go, for the hand to leave.
    """

    over: float
    near: float
    release: float
    aim: float
    done: float


_WAYS = {
    "Stack": Way(0.06, 0.008, 0.006, 0.003, 0.016),
    "PickPlace": Way(0.17, 0.03, 0.06, 0.03, 0.06),
    "NutAssembly": Way(0.03, 0.004, -0.02, -0.035, 0.03),
}
_RETREAT = 0.12
_ALIGNED = 0.06


def expert_action(task: Task, s: Snapshot) -> Float32[np.ndarray, " 7"]:
    """The action in a state."""
    if not task.goal:
        return act(s.hand[:2] * 0, 0.05, 0.0, CLOSE, s.tilt) if s.holds else fetch(s)
    way = _WAYS[task.scene]
    away = s.goal[:2] - s.middle[:2]
    distance, above = float(np.hypot(*away)), s.low - s.goal[2]
    if s.holds:
        return _place(way, s, away, distance, above)
    if distance < way.done and above < max(0.0, 2 * way.release):
        return _leave(s)
    return fetch(s)


def _place(
    way: Way, s: Snapshot, away: Float64[np.ndarray, " 2"], distance: float, above: float
) -> Float32[np.ndarray, " 7"]:
    """Up, over, down, let go. What is on its peg already may be further off."""
    near = way.near if above > 0 else way.done
    if distance < near and abs(s.align) < _ALIGNED:
        if above < way.release:
            return act(away, 0.0, 0.0, OPEN, s.tilt)
        return act(away, way.aim - above, s.align, CLOSE, s.tilt)
    rise = way.over - above
    return act(away if rise < 0.03 else away * 0, rise, s.align, CLOSE, s.tilt)


def _leave(s: Snapshot) -> Float32[np.ndarray, " 7"]:
    """Open, then straight up."""
    if s.width < 0.06:
        return act(s.hand[:2] * 0, 0.0, 0.0, OPEN, s.tilt)
    return act(s.hand[:2] * 0, s.height + _RETREAT - s.hand[2], 0.0, OPEN, s.tilt)
