"""The first step at which a pruned episode decides, or goes, another way than dense would."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from jaxtyping import Float32
    from numpy import ndarray

    from sim.attribution.lab import Actor, Checkpoint, Walk
    from sim.suites.base import SuiteSpec

DECISION_GAP = 0.25
PATH_GAP_M = 0.02


class Divergence(NamedTuple):
    """Where two episodes of one seed part.

    Attributes:
        decision_step: first control step at which dense, shown what the pruned policy saw, would
            have moved by more than `DECISION_GAP` otherwise, or turned the gripper; None if never.
        decision_gap: how much then, in the action's own units.
        path_step: first query's step at which both episodes' lengths in the state (metres) lie more
            than `PATH_GAP_M` apart; None if never.
        path_gap_m: how much then.
    """

    decision_step: int | None
    decision_gap: float
    path_step: int | None
    path_gap_m: float


def divergence(pruned: Walk, dense: Walk, actor: Actor, suite: SuiteSpec) -> Divergence:
    """Compare a pruned episode with dense, decision by decision and step by step.

    Args:
        pruned: the pruned episode.
        dense: the dense one of the same seed.
        actor: the dense policy, which is asked again at every look of the pruned episode.
        suite: says which state values are metres, and what the last action is.
    """
    decision: tuple[int | None, float] = (None, 0.0)
    grips = suite.action.gripper != "none"
    for moment in pruned.checkpoints:
        gap = action_gap(moment.actions, actor.decide(moment.seen, actor.fresh()).actions, grips)
        if gap > DECISION_GAP:
            decision = moment.step, gap
            break
    lengths = metres(suite)
    path: tuple[int | None, float] = (None, 0.0)
    for one, other in zip(pruned.checkpoints, dense.checkpoints, strict=False):
        apart = _distance(one, other, lengths)
        if one.step == other.step and apart > PATH_GAP_M:
            path = one.step, apart
            break
    return Divergence(*decision, *path)


def metres(suite: SuiteSpec) -> list[int]:
    """Numbers of the state values that are lengths: those that say so in their name."""
    names = suite.observation.state_names
    return [at for at, name in enumerate(names) if name.endswith(("[m]", "_m"))]


def action_gap(
    ours: Float32[ndarray, "rows dof"], theirs: Float32[ndarray, "rows dof"], grips: bool
) -> float:
    """The largest difference between two chunks' rows; a gripper counts only when it turns."""
    rows = min(len(ours), len(theirs))
    difference = np.abs(ours[:rows] - theirs[:rows])
    if grips:
        turned = (ours[:rows, -1] > 0) != (theirs[:rows, -1] > 0)
        difference[:, -1] *= turned
    return float(difference.max(initial=0.0))


def _distance(one: Checkpoint, other: Checkpoint, lengths: list[int]) -> float:
    if one.seen.state is None or other.seen.state is None or not lengths:
        return 0.0
    return float(np.abs(one.seen.state[lengths] - other.seen.state[lengths]).max())
