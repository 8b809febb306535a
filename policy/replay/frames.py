"""A recorded episode as rows that a data set can hold: one look and one action each."""

from __future__ import annotations

from itertools import pairwise
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

from policy.replay.types import ReplayError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from jaxtyping import Float32

    from policy.replay.types import Episode, Look


class FrameRow(NamedTuple):
    """One row of a data set."""

    look: Look
    action: Float32[np.ndarray, " dof"]


def frame_rows(episode: Episode, *, first_action: bool = False) -> Iterator[FrameRow]:
    """One row per look.

    A look at the very end, after which nothing was executed, is no row.

    Args:
        episode: where from; walked look by look.
        first_action: where several rows were executed after a look, take the first, and where none
            was, leave the look out; both are counted in `episode.losses`.

    Raises:
        ReplayError: when looks and executed rows are not one to one, and nobody said what to do.
    """
    idle: list[int] = []
    for number, step in enumerate(episode.steps()):
        if idle and not first_action:
            _refuse(episode, idle[0], 0)
        if len(step.rows) == 0:
            idle.append(number)
            continue
        if len(step.rows) > 1:
            if not first_action:
                _refuse(episode, number, len(step.rows))
            episode.losses.count("rows_left_out", len(step.rows) - 1)
        yield FrameRow(step.look(), step.rows[0])
    if len(idle) > 1:
        episode.losses.count("looks_left_out", len(idle))


def look_rate_hz(episode: Episode) -> float:
    """Looks per second, from the median gap; the recording's own rate when there is one look."""
    stamps = [step.stamp_s for step in episode.steps()]
    gaps = [b - a for a, b in pairwise(stamps)]
    middle = median(gaps) if gaps else 0.0
    return 1.0 / middle if middle > 0 else episode.info.rate_hz


def _refuse(episode: Episode, number: int, rows: int) -> None:
    raise ReplayError(
        f"{episode.info.name}: look {number} is followed by {rows} executed rows, a data set has "
        "one per look; `--first-action` takes the first and leaves looks without one out"
    )
