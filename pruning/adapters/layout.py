"""Where text and pictures lie in a batch. Host numbers only: nothing here waits for a device."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pruning.adapters.errors import AdapterError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaxtyping import Bool, Int64
    from torch import Tensor


class Span(NamedTuple):
    """Consecutive visual tokens: one view, or tokens between views that always live."""

    tokens: int
    is_view: bool = True


class Encoded(NamedTuple):
    """What an encoder made: how its tokens divide, and what its tower shows, a row per token."""

    spans: list[Span]
    tower: dict[str, Tensor]


@dataclass
class View:
    """One image, tile or video frame.

    Attributes:
        row: sample of the batch.
        kind: of picture: 0 for images, 1 for videos.
        offset: of its first token among all that the encoder of its kind made.
        first: slot of its first token in the sequence.
        tokens: tokens it came with.
        living: tokens that are left.
        kept: which, as indices into the view; None for all.
    """

    row: int
    kind: int
    offset: int
    first: int
    tokens: int
    living: int
    kept: Int64[Tensor, " k"] | None = None


@dataclass
class Row:
    """One sample: its real tokens, padding left out, as runs of text and views.

    Attributes:
        slots: slots of the real tokens.
        runs: text runs as token counts, views as themselves, in order.
        views: the views among the runs.
        text: tokens behind the last view: the question.
    """

    slots: np.ndarray
    runs: list[int | View] = field(default_factory=list)

    @property
    def views(self) -> list[View]:
        """The views among the runs, in order."""
        return [run for run in self.runs if isinstance(run, View)]

    @property
    def length(self) -> int:
        """Real tokens that are left."""
        return sum(run.living if isinstance(run, View) else run for run in self.runs)

    @property
    def text(self) -> int:
        """Tokens behind the last view: the question."""
        last = self.runs[-1]
        return last if isinstance(last, int) else 0

    def starts(self) -> list[int]:
        """Where each run begins among the real tokens that are left."""
        sizes = [run.living if isinstance(run, View) else run for run in self.runs]
        return [0, *np.cumsum(sizes).tolist()][: len(sizes)]

    def start_of(self, view: View) -> int:
        """Where a view begins among the real tokens that are left."""
        at = next(at for at, run in enumerate(self.runs) if run is view)
        return self.starts()[at]


def lay_out(
    real: Bool[np.ndarray, "b s"],
    kinds: Sequence[tuple[Bool[np.ndarray, "b s"], Sequence[Span]]],
) -> list[Row]:
    """The rows of a batch.

    Args:
        real: False at padding.
        kinds: per kind of picture (images, videos): where its tokens are, and the spans that they
            divide into, in the order of the batch. Where samples were repeated after their pictures
            had been encoded (beams), spans come once.

    Raises:
        AdapterError: when the pictures and their places do not match.
    """
    rows = [Row(np.flatnonzero(mask)) for mask in real]
    views: list[list[View]] = [[] for _ in rows]
    for kind, (mask, spans) in enumerate(kinds):
        places = [np.flatnonzero(row) for row in mask & real]
        for at, numbers in enumerate(_deal(spans, [len(row) for row in places])):
            views[at] += _views(at, kind, numbers, spans, places[at])
    for row, own in zip(rows, views, strict=True):
        row.runs = _runs(row.slots, sorted(own, key=lambda view: view.first))
    return rows


def _deal(spans: Sequence[Span], wanted: Sequence[int]) -> list[list[int]]:
    """Numbers of the spans of each sample, by how many visual tokens it has."""
    total, places = sum(span.tokens for span in spans), sum(wanted)
    if (places and not total) or (total and places % total):
        raise AdapterError(
            f"the prompts hold {places} visual tokens, the pictures make {total}: "
            "give the inputs as the model's own processor made them"
        )
    copies, next_one = places // total if total else 1, 0
    dealt: list[list[int]] = []
    for at, want in enumerate(wanted):
        if at % max(copies, 1):
            dealt.append(dealt[-1])
            continue
        mine, have = [], 0
        while have < want and next_one < len(spans):
            mine.append(next_one)
            have, next_one = have + spans[next_one].tokens, next_one + 1
        dealt.append(mine)
    if any(
        sum(spans[n].tokens for n in mine) != want for mine, want in zip(dealt, wanted, strict=True)
    ):
        raise AdapterError("a picture's tokens are divided between two samples")
    return dealt


def _views(
    row: int, kind: int, numbers: Sequence[int], spans: Sequence[Span], places: np.ndarray
) -> list[View]:
    found, start = [], 0
    offset = sum(span.tokens for span in spans[: numbers[0]]) if numbers else 0
    for number in numbers:
        tokens, is_view = spans[number]
        at = places[start : start + tokens]
        start += tokens
        if not is_view or not tokens:
            continue
        if at[-1] - at[0] != tokens - 1:
            raise AdapterError("a picture's tokens do not lie side by side")
        found.append(View(row, kind, offset + start - tokens, int(at[0]), tokens, tokens))
    return found


def _runs(slots: np.ndarray, views: list[View]) -> list[int | View]:
    runs: list[int | View] = []
    done = 0
    for view in views:
        at = int(np.searchsorted(slots, view.first))
        if at > done:
            runs.append(at - done)
        runs.append(view)
        done = at + view.tokens
    if len(slots) > done or not runs:
        runs.append(len(slots) - done)
    return runs
