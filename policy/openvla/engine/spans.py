"""Decoder layers between two cuts, and which needs of a method a graph can meet. No torch."""

from __future__ import annotations

from dataclasses import dataclass

from pruning.base import ROW_KINDS

NEXT = frozenset({"text_next", "text_qk"})
"""Needs that are met from the layer about to run."""

AT_CUT = ROW_KINDS | {"text_rows", "heads"} | NEXT | {"transition"}
"""Needs that the layers before a cut meet."""

TOWER = frozenset({"tower_attention", "tower_keys", "tower_features"})
OTHERS = frozenset({"features", "text_features", "hidden", "text_hidden", "history"})
EXPORTED = AT_CUT | TOWER | OTHERS
"""Every need that a graph can meet."""


@dataclass(frozen=True)
class Span:
    """Decoder layers between two cuts, and what happens on the way.

    Attributes:
        first: first layer.
        last: one past the last layer.
        before: visual tokens of each view that come in.
        tokens: those that live in these layers.
        merges: kept tokens become weighted means of those that come in.
        action_layer: layer whose action rows the host remembers, when it is one of these.
        looks: what the next choice reads of these layers, or of the layer after them.
        stride: see `Method.row_stride`.
        trace_from: first layer whose changes to every token are added up; None for none.
    """

    first: int
    last: int
    before: int
    tokens: int
    merges: bool = False
    action_layer: int | None = None
    looks: tuple[str, ...] = ()
    stride: int = 1
    trace_from: int | None = None

    @property
    def gathers(self) -> bool:
        """Tokens leave before the first layer."""
        return self.tokens < self.before

    @property
    def carries_trace(self) -> bool:
        """Earlier layers have been traced already."""
        return self.trace_from is not None and self.trace_from < self.first
