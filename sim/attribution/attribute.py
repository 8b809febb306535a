"""Where pruning lost an episode that dense wins: the step, the phase of the task, and the view.

Two ways to lose are told apart. *No return*: from some query of the pruned episode on, not even
the dense policy can win any more; the query before that moment lost it. *Stalled*: the dense policy
could still win from the pruned episode's last moment, had it the time; nothing was broken, the
pruned policy merely cannot do some part. Then the search goes through the dense episode instead,
for the last moment from which the pruned policy cannot finish: that part it needs dense for.
Time is no obstacle in either search: a continuation may take a whole episode's steps.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

from sim.attribution.bisect import Turning, Vote, turning_point, vote
from sim.attribution.divergence import action_gap, divergence
from sim.attribution.lab import AttributionError
from sim.truth import Witness

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sim.attribution.divergence import Divergence
    from sim.attribution.lab import Actor, Checkpoint, Lab, Trial, Walk
    from sim.rollout.types import EpisodeRecord, Frame

TRIALS = 5
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

    Raises:
        AttributionError: when the episode does not repeat, dense fails too, or dense wins only by
            luck.
    """
    began = time.perf_counter()
    walks = _walks(lab, record, dense, pruned)
    kind, turning = _search(lab, walks, dense, pruned, trials)
    path = walks[0] if kind == "no_return" else walks[1]
    last = len(path.checkpoints) - 1 if turning.last is None else turning.last
    start = path.checkpoints[last]
    answer = pruned.decide(start.seen, start.state if kind == "no_return" else pruned.fresh())
    reference = dense.decide(start.seen, dense.fresh())
    grips = lab.suite.action.gripper != "none"
    after = path.checkpoints[min(last + 1, len(path.checkpoints) - 1)]
    phase, views = _views(
        lab, kind, start._replace(kept=answer.kept), dense, pruned, by_view, trials
    )
    return Attribution(
        kind,
        start.query,
        start.step,
        after.step if after is not start else path.steps,
        phase,
        walks[0].steps,
        walks[1].steps,
        turning,
        views,
        views_note,
        action_gap(answer.actions, reference.actions, grips),
        divergence(*walks, dense, lab.suite),
        tuple(
            lab.photograph(moment, PICTURE) for moment in (start._replace(kept=answer.kept), after)
        ),
        answer.view_tokens,
        lab.queries,
        time.perf_counter() - began,
    )


def _walks(lab: Lab, record: EpisodeRecord, dense: Actor, pruned: Actor) -> tuple[Walk, Walk]:
    """Both episodes once more, which must go as they did."""
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
    lab: Lab, walks: tuple[Walk, Walk], dense: Actor, pruned: Actor, trials: int
) -> tuple[Kind, Turning]:
    """The turning point along the pruned episode, or else along the dense one."""
    most = lab.suite.max_steps
    ours, theirs = (walk.checkpoints for walk in walks)

    def rescued(index: int, whole: bool) -> Vote:
        def run(number: int) -> Trial:
            return lab.trial(ours[index], dense, number, most)

        return vote(index, run, trials, whole=whole)

    def finished(index: int, whole: bool) -> Vote:
        def run(number: int) -> Trial:
            return lab.trial(theirs[index], pruned, number, most)

        return vote(index, run, trials, whole=whole)

    turning = turning_point(len(ours), rescued)
    if not turning.votes[0].won:
        raise AttributionError(
            f"dense wins only {turning.votes[0].wins} of {turning.votes[0].trials} disturbed "
            "episodes from the very start: there is no single step to name; lower --noise"
        )
    if turning.last is not None:
        return "no_return", turning
    turning = turning_point(len(theirs), finished, starts_won=False)
    if turning.votes[0].won:
        raise AttributionError(
            f"the pruned policy wins {turning.votes[0].wins} of {turning.votes[0].trials} "
            "disturbed episodes from the very start: this failure was bad luck, no step lost it"
        )
    return "stalled", turning


def _views(
    lab: Lab,
    kind: Kind,
    start: Checkpoint,
    dense: Actor,
    pruned: Actor,
    by_view: Sequence[Actor],
    trials: int,
) -> tuple[str | None, tuple[View, ...]]:
    """The phase at the critical moment, and what each view kept and did."""
    most = lab.suite.max_steps
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

            found = vote(start.query, run, trials, whole=True)
        views.append(
            View(
                name,
                found,
                {role: counts[number] for role, counts in shown.items()},
                {role: counts[number] for role, counts in kept.items()},
            )
        )
    return None if truth is None else truth.phase, tuple(views)
