"""How much of what mattered a pruner kept, per phase of the task, and whether success goes with it.

Recall is a ratio of sums: patches that show a thing and live, over patches that show it. The
correlation is between an episode's recall and its success, over the episodes of one cell; it is no
proof of a cause, since a lost episode also goes on longer and looks at other things. With few
episodes, or few of either outcome, any number may come out, so none is given.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sim.statistics import Interval

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from jaxtyping import Float64

    from sim.rollout.types import EpisodeRecord

DRAWS = 2000
LEAST_EPISODES, LEAST_OUTCOMES = 10, 3
ALL = "all"


class Recall(NamedTuple):
    """Recall of one role in one phase, over the episodes of a cell.

    Attributes:
        phase: of the task; `all` for every query.
        role: `object`, `gripper` or `goal`.
        recall: over all views; None when the role was never seen then.
        by_view: per view, in the policy's order; None where it was never seen.
        queries: queries in which at least one view showed it.
        in_success: recall in successful episodes; None without one.
        in_failure: recall in failed episodes; None without one.
        correlation: of an episode's recall with its success; None where `withheld` says why.
        ci95: bootstrap interval of the correlation; None where `withheld` says why.
        episodes: that the correlation is over.
        withheld: why there is no correlation, or no interval; empty when there are both.
    """

    phase: str
    role: str
    recall: float | None
    by_view: tuple[float | None, ...]
    queries: int
    in_success: float | None
    in_failure: float | None
    correlation: float | None
    ci95: Interval | None
    episodes: int
    withheld: str


class _Count(NamedTuple):
    """One query's patches of one role, per view."""

    phase: str
    shown: Sequence[int]
    kept: Sequence[int]


def recalls(records: Iterable[EpisodeRecord]) -> list[Recall]:
    """Recall per role, over the whole task and per phase; empty when no truth was recorded."""
    told = [record for record in records if record.truth and record.outcome != "error"]
    phases = dict.fromkeys(query.phase for record in told for query in record.truth)
    roles = dict.fromkeys(role for record in told for q in record.truth for role in q.shown)
    return [_recall(told, phase, role) for role in roles for phase in (ALL, *phases)]


def correlation(
    values: Sequence[float], success: Sequence[bool]
) -> tuple[float | None, Interval | None, str]:
    """Pearson's correlation with success, its 95 % bootstrap interval, and what was withheld why.

    A draw in which one of the two does not vary shows no relation and counts as zero.
    """
    x, y = np.asarray(values, float), np.asarray(success, float)
    won, lost = int(y.sum()), int(len(y) - y.sum())
    if len(x) < LEAST_EPISODES:
        return None, None, f"fewer than {LEAST_EPISODES} episodes: {len(x)}"
    if min(won, lost) < LEAST_OUTCOMES:
        return None, None, f"fewer than {LEAST_OUTCOMES} of either outcome: {won} won, {lost} lost"
    if np.ptp(x) < 1e-12:
        return None, None, "the recall does not vary"
    places = np.random.default_rng(0).integers(len(x), size=(DRAWS, len(x)))
    low, high = np.quantile(_pearson(x[places], y[places]), (0.025, 0.975))
    found = float(_pearson(x[None], y[None])[0])
    if high - low < 1e-9:
        return found, None, "all draws agree: no interval"
    return found, Interval(float(low), float(high)), ""


def _pearson(
    x: Float64[np.ndarray, "draws episodes"], y: Float64[np.ndarray, "draws episodes"]
) -> Float64[np.ndarray, " draws"]:
    a, b = x - x.mean(1, keepdims=True), y - y.mean(1, keepdims=True)
    spread = np.sqrt((a * a).sum(1) * (b * b).sum(1))
    return np.divide((a * b).sum(1), spread, out=np.zeros(len(x)), where=spread > 1e-12)


def _recall(records: Sequence[EpisodeRecord], phase: str, role: str) -> Recall:
    counts = [(record, _counts(record, phase, role)) for record in records]
    every = [count for _, found in counts for count in found]
    episodes = [
        (ratio, record.outcome == "success")
        for record, found in counts
        if (ratio := _ratio(found)) is not None
    ]
    tied, ci95, withheld = correlation([r for r, _ in episodes], [won for _, won in episodes])
    views = max((len(count.shown) for count in every), default=0)
    return Recall(
        phase,
        role,
        _ratio(every),
        tuple(_ratio(every, view) for view in range(views)),
        sum(any(count.shown) for count in every),
        _ratio([c for record, found in counts if record.outcome == "success" for c in found]),
        _ratio([c for record, found in counts if record.outcome == "failure" for c in found]),
        tied,
        ci95,
        len(episodes),
        withheld,
    )


def _counts(record: EpisodeRecord, phase: str, role: str) -> list[_Count]:
    return [
        _Count(query.phase, query.shown[role], query.kept[role])
        for query in record.truth
        if role in query.shown and phase in (ALL, query.phase)
    ]


def _ratio(counts: Sequence[_Count], view: int | None = None) -> float | None:
    def total(patches: Sequence[int]) -> int:
        return sum(patches) if view is None else patches[view]

    shown = sum(total(count.shown) for count in counts)
    return sum(total(count.kept) for count in counts) / shown if shown else None
