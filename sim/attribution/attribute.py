"""Where pruning lost an episode that dense wins: the step, the phase of the task, and the view.

Two ways to lose are told apart. *No return*: from some query of the pruned episode on, not even
the dense policy can win any more, and it could have, in time, a moment before; the query between
lost it. *Stalled*: for as long as there was time to win, the dense policy could still have; nothing
was broken, the pruned policy merely cannot do some part. Then the search goes through the dense
episode instead, for the last moment from which the pruned policy cannot finish: that part it needs
dense for. The clock is no obstacle in either search: a continuation may take half as many steps
again as the whole dense episode.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING, Literal, NamedTuple

from pruning.base import MethodError
from sim.attribution.bisect import Turning, Vote, turning_point, vote
from sim.attribution.divergence import action_gap, divergence
from sim.attribution.lab import AttributionError, check_saves
from sim.truth import Witness

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sim.attribution.divergence import Divergence
    from sim.attribution.lab import Actor, Checkpoint, Lab, Trial, Walk
    from sim.rollout.types import EpisodeRecord, Frame

TRIALS = 5
QUICK = 3  # continuations of a vote on the way; the turning point gets all
PICTURE = 256
Kind = Literal["no_return", "stalled"]


class View(NamedTuple):
    """What one view did to the episode.

    Attributes:
        name: the camera.
        vote: continuations in which this view alone was pruned; None when that cannot be run.
        shown: per role, patches of the view that showed it at the critical moment.
        kept: of these, the ones that lived.
    """

    name: str
    vote: Vote | None
    shown: dict[str, int]
    kept: dict[str, int]


@dataclass(frozen=True)
class Attribution:
    """The answer.

    Attributes:
        kind: how the episode was lost.
        query: number of the critical query, in the pruned episode (no return) or the dense one.
        step: control steps before it.
        until_step: control steps before the next query: the loss lies between the two.
        phase: what the task asked for then; None when the suite does not tell.
        pruned_steps: length of the pruned episode.
        dense_steps: length of the dense one.
        turning: all votes.
        mended: continuations by the pruned policy from the very start, when most of them win with a
            little noise; then all votes are of the undisturbed course alone. None otherwise.
        views: evidence per view, in the policy's order.
        views_note: why the views could not be told apart; empty when they were.
        gap: largest difference between the pruned and the dense decision at the critical moment.
        divergence: where the two episodes part first.
        moments: pictures of the critical moment and of the next query.
        view_tokens: visual tokens of one view.
        queries: queries of policies that all this took.
        seconds: wall time.
    """

    kind: Kind
    query: int
    step: int
    until_step: int
    phase: str | None
    pruned_steps: int
    dense_steps: int
    turning: Turning
    mended: Vote | None
    views: tuple[View, ...]
    views_note: str
    gap: float
    divergence: Divergence
    moments: tuple[Frame, ...]
    view_tokens: int
    queries: int
    seconds: float

    @property
    def culprits(self) -> tuple[str, ...]:
        """Views that lose the episode when they alone are pruned."""
        return tuple(view.name for view in self.views if view.vote and not view.vote.won)


def attribute(
    lab: Lab,
    record: EpisodeRecord,
    dense: Actor,
    pruned: Actor,
    by_view: Sequence[Actor] = (),
    *,
    trials: int = TRIALS,
    views_note: str = "",
    tell: Callable[[str], None] = lambda words: None,
) -> Attribution:
    """Find where pruning lost the episode of `record`.

    Args:
        lab: the scene.
        record: the failed pruned episode.
        dense: the dense policy.
        pruned: the policy that failed.
        by_view: the same with one view pruned each, in the policy's order; empty when impossible.
        trials: continuations per moment at most.
        views_note: why `by_view` is empty.
        tell: told of every vote.

    Raises:
        AttributionError: when the suite saves nothing, the episode does not repeat, or dense fails.
    """
    began = time.perf_counter()
    walks = _walks(lab, record, dense, pruned)
    kind, turning, mended = _search(lab, walks, dense, pruned, trials, tell)
    path = walks[0] if kind == "no_return" else walks[1]
    last = len(path.checkpoints) - 1 if turning.last is None else turning.last
    start = path.checkpoints[last]
    answer = pruned.decide(start.seen, start.state if kind == "no_return" else pruned.fresh())
    reference = dense.decide(start.seen, dense.fresh())
    grips = lab.suite.action.gripper != "none"
    after = path.checkpoints[min(last + 1, len(path.checkpoints) - 1)]
    start = start._replace(kept=answer.kept)
    by_view, views_note = _usable(by_view, start, views_note)
    if mended is not None:
        trials = 1
    phase, views = _views(lab, kind, start, dense, pruned, by_view, trials, walks[1])
    return Attribution(
        kind,
        start.query,
        start.step,
        after.step if after is not start else path.steps,
        phase,
        walks[0].steps,
        walks[1].steps,
        turning,
        mended,
        views,
        views_note,
        action_gap(answer.actions, reference.actions, grips),
        divergence(*walks, dense, lab.suite),
        tuple(lab.photograph(moment, PICTURE) for moment in (start, after)),
        answer.view_tokens,
        lab.queries,
        time.perf_counter() - began,
    )


def _usable(by_view: Sequence[Actor], start: Checkpoint, note: str) -> tuple[Sequence[Actor], str]:
    """The views' actors, or none and why, when the method does more than choose."""
    try:
        for one in by_view:
            one.decide(start.seen, one.fresh())
    except MethodError as error:
        return (), str(error)
    return by_view, note


def _walks(lab: Lab, record: EpisodeRecord, dense: Actor, pruned: Actor) -> tuple[Walk, Walk]:
    """Both episodes once more, which must go as they did, on a suite that can go back."""
    check_saves(lab.suite)
    ours = lab.walk(pruned)
    started = ours.opening.start.init_state_hash
    where = f"{record.cell}, seed {record.seed}"
    if record.init_state_hash and started != record.init_state_hash:
        raise AttributionError(
            f"{where} began from {record.init_state_hash[:12]}, now from {started[:12]}: the suite "
            "is another version than the one that was run"
        )
    if ours.success:
        raise AttributionError(
            f"{where} failed when it was run and succeeds now, after {ours.steps} steps: policy or "
            "suite changed since; run the rollout again"
        )
    theirs = lab.walk(dense)
    if not theirs.success:
        raise AttributionError(
            f"{where}: dense fails on this seed, too, so pruning is not what lost it; choose a "
            "seed that dense solves"
        )
    return ours, theirs


def _search(
    lab: Lab,
    walks: tuple[Walk, Walk],
    dense: Actor,
    pruned: Actor,
    trials: int,
    tell: Callable[[str], None],
) -> tuple[Kind, Turning, Vote | None]:
    """The turning point along the pruned episode, or else along the dense one."""
    limit, most = lab.suite.max_steps, _allowance(lab, walks[1])
    paths, actors = [walk.checkpoints for walk in walks], (dense, pruned)

    @cache
    def run(side: int, index: int, number: int) -> Trial:
        return lab.trial(paths[side][index], actors[side], number, most)

    def ask(side: int, index: int, whole: bool) -> Vote:
        start, count = paths[side][index], trials if whole else min(QUICK, trials)
        found = vote(index, partial(run, side, index), count, limit - start.step, whole=whole)
        tell(f"step {start.step}: {actors[side].name} wins {found.wins} of {found.trials}")
        return found

    turning = turning_point(len(paths[0]), partial(ask, 0))
    if not turning.votes[0].won:
        raise AttributionError(
            f"dense wins only {turning.votes[0].wins} of {turning.votes[0].trials} disturbed "
            "episodes from the very start: there is no single step to name; lower --noise",
            exit_code=1,
        )
    if _lost_in_time(turning):
        return "no_return", turning, None
    turning = turning_point(len(paths[1]), partial(ask, 1), starts_won=False)
    mended = turning.votes[0] if turning.votes[0].won else None
    if mended is not None:
        tell("a little noise mends this failure: the undisturbed course alone is searched")
        trials = 1
        turning = turning_point(len(paths[1]), partial(ask, 1), starts_won=False)
    return "stalled", turning, mended


def _lost_in_time(turning: Turning) -> bool:
    """Whether the last moment that could be won came early enough to win it.

    A policy that hesitates until its time is over, and only then breaks something, has stalled.
    """
    votes = {one.moment: one for one in turning.votes}
    if turning.last is None:
        return False
    last = votes[turning.last]
    return 2 * last.in_time > last.trials


def _allowance(lab: Lab, dense: Walk) -> int:
    """Control steps of a continuation: half as many again as the dense episode took, or all."""
    return min(lab.suite.max_steps, dense.steps + dense.steps // 2)


def _views(
    lab: Lab,
    kind: Kind,
    start: Checkpoint,
    dense: Actor,
    pruned: Actor,
    by_view: Sequence[Actor],
    trials: int,
    walk: Walk,
) -> tuple[str | None, tuple[View, ...]]:
    """The phase at the critical moment, and what each view kept and did."""
    limit, most = lab.suite.max_steps, _allowance(lab, walk)
    truth = lab.truth_at(start)
    shown: dict[str, list[int]] = {}
    kept: dict[str, list[int]] = {}
    if truth is not None:
        tokens = pruned.decide(start.seen, pruned.fresh()).view_tokens
        seen = Witness(pruned.policy, lab.suite).compare(truth, start.kept, tokens)
        shown, kept = seen.shown, seen.kept
    views = []
    for number, name in enumerate(pruned.policy.observation_spec.views):
        found = None
        if by_view:
            one = by_view[number]

            def run(trial: int, one: Actor = one) -> Trial:
                if kind == "no_return":  # one pruned query, then dense for the rest
                    return lab.trial(start, dense, trial, most, first=one)
                return lab.trial(start, one, trial, most)

            found = vote(start.query, run, trials, limit - start.step, whole=True)
        views.append(
            View(
                name,
                found,
                {role: counts[number] for role, counts in shown.items()},
                {role: counts[number] for role, counts in kept.items()},
            )
        )
    return None if truth is None else truth.phase, tuple(views)
