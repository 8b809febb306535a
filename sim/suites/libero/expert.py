"""A scripted expert for `libero_object`: pick the target up, put it in the basket."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sim.suites.grasp import CLOSE, OPEN, act, fetch

if TYPE_CHECKING:
    from jaxtyping import Float32

    from sim.suites.grasp import Snapshot

_TRAVEL = 0.30  # height of the hand on its way to the basket


def expert_action(s: Snapshot) -> Float32[np.ndarray, " 7"]:
    """The action in a state."""
    if not s.holds:
        return fetch(s)
    away = s.goal[:2] - s.hand[:2]
    if np.hypot(*away) < 0.02:
        return act(away, 0.0, 0.0, OPEN)
    rise = _TRAVEL - s.hand[2]
    return act(away if rise < 0.06 else away * 0, rise, 0.0, CLOSE)
