"""A scripted expert for `libero_object`: pick the target up, put it in the basket.

It keeps no memory. Every action follows from the present state, so a slip or a shove is answered by
the phase that the new state belongs to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from jaxtyping import Float32, Float64

    from sim.suites.libero.judge import Snapshot

OPEN, CLOSE = -1.0, 1.0
_STEP_M = 0.05  # what 1.0 of a translation means
_STEP_RAD = 0.5
_NEAR = 0.012
_LOOSE = 0.02
_DEPTH = 0.006
_FLOOR = 0.008
_PALM = 0.026  # how far below the target's top the finger tips come before the palm is on it
_SHUT = 0.004
_TRAVEL = 0.30  # height of the hand on its way to the basket
_FINGER = 0.022  # how far below the target's top the finger tips close


def expert_action(s: Snapshot) -> Float32[np.ndarray, " 7"]:
    """The action in a state."""
    away = s.goal[:2] - s.hand[:2]
    if s.touched == 2 and s.width < 0.078:
        return _carry(s, away)
    over = s.target[:2] - s.hand[:2]
    grasp = max(min(s.target[2], s.height - _FINGER), s.height - _PALM, _FLOOR)
    below = grasp - s.hand[2]
    # A hand that is down already forgives more: it pushes what it will close on anyway.
    down = s.hand[2] < s.height + 0.02
    if np.hypot(*over) > (_LOOSE if down else _NEAR) or abs(s.turn) > (0.5 if down else 0.1):
        clearance = s.height + 0.06 - s.hand[2]
        sideways = np.hypot(*over) < 0.03 or clearance < 0.03
        return _action(over if sideways else over * 0, clearance, s.turn, OPEN)
    if s.width < _SHUT:  # closed on nothing
        return _action(over, 0.03, s.turn, OPEN)
    if below < -_DEPTH:
        return _action(over, below, s.turn, OPEN)
    return _action(over, below, 0.0, CLOSE)


def _carry(s: Snapshot, away: Float64[np.ndarray, " 2"]) -> Float32[np.ndarray, " 7"]:
    if np.hypot(*away) < 0.02:
        return _action(away, 0.0, 0.0, OPEN)
    rise = _TRAVEL - s.hand[2]
    return _action(away if rise < 0.06 else away * 0, rise, 0.0, CLOSE)


def _action(
    sideways: Float64[np.ndarray, " 2"], up: float, turn: float, gripper: float
) -> Float32[np.ndarray, " 7"]:
    move = np.clip(np.array([*sideways, up]) * 2.0 / _STEP_M, -1.0, 1.0)
    twist = float(np.clip(turn / _STEP_RAD, -0.5, 0.5))
    return np.array([*move, 0.0, 0.0, twist, gripper], np.float32)
