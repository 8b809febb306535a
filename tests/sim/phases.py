"""The phases that an episode goes through."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from sim.suites.base import ShowsTruth


def phases_of(suite: ShowsTruth, steps: int, *, expert: bool = True) -> list[str]:
    """Each phase once, in the order of its first step: of the suite's expert, or of a hand that
    goes straight to the target until the first phase is over."""
    phases: list[str] = []
    for _ in range(steps):
        phases.append(suite.phase())
        if not expert and phases[-1] != phases[0]:
            break
        action = suite.expert_action() if expert else _towards(suite)
        if suite.step(action).success:
            break
    return list(dict.fromkeys(phases))


def _towards(suite: ShowsTruth) -> np.ndarray:
    """Open, and 5 cm a step towards the target."""
    away = suite.grounding()["target"] - suite.observe().state[:3]
    return np.array([*np.clip(20.0 * away, -1.0, 1.0), 0, 0, 0, -1], np.float32)
