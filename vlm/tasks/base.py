"""What a task is: a reader of published files, and the benchmark's own scoring."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from vlm.types import Judged, Question, ReadOptions


def _nothing_more(judged: Sequence[Judged]) -> dict[str, float]:
    return {}


@dataclass(frozen=True)
class Task:
    """One benchmark.

    Attributes:
        name: its name on the command line, and of its folder below the data root.
        about: one line on what it asks.
        where: what to put where.
        read: questions of a local copy, in the published order.
        score: 0 wrong to 1 right.
        summarise: figures of the benchmark beside the mean score.
        max_new_tokens: longest answer.
        video: whether its pictures are frames of a video.
    """

    name: str
    about: str
    where: str
    read: Callable[[Path, ReadOptions], list[Question]]
    score: Callable[[str, Question], float]
    summarise: Callable[[Sequence[Judged]], dict[str, float]] = _nothing_more
    max_new_tokens: int = 16
    video: bool = False
