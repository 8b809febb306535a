"""How long a sweep will take, from episodes that were measured before."""

from __future__ import annotations

from collections import defaultdict
from statistics import fmean
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from sim.rollout.types import Cell, EpisodeRecord

    Measured = Mapping[Cell, Sequence[float]]


class Estimate(NamedTuple):
    """The cost of some episodes.

    Attributes:
        seconds: of one worker, all episodes one after the other; None when nothing was measured.
        measured: episodes that the figure rests on.
        borrowed: episodes to run in cells that were never measured; the mean of the others is
            taken for them.
    """

    seconds: float | None
    measured: int
    borrowed: int


def measured_seconds(records: Iterable[EpisodeRecord]) -> dict[Cell, list[float]]:
    """Wall time of every judged episode that really ran, by cell."""
    found: dict[Cell, list[float]] = defaultdict(list)
    for record in records:
        if record.outcome != "error" and record.reused_from is None:
            found[record.cell].append(record.seconds)
    return dict(found)


def estimate(todo: Iterable[Cell], measured: Measured) -> Estimate:
    """The cost of one episode in each of these cells.

    Args:
        todo: the cell of every episode that is to run; one that only copies dense costs nothing.
        measured: wall times of the same suite and policy.
    """
    everything = [seconds for times in measured.values() for seconds in times]
    if not everything:
        return Estimate(None, 0, 0)
    means = {cell: fmean(times) for cell, times in measured.items()}
    overall, total, borrowed = fmean(everything), 0.0, 0
    for cell in todo:
        total += means.get(cell, overall)
        borrowed += cell not in means
    return Estimate(total, len(everything), borrowed)
