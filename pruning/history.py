"""Memory between queries: what the action rows looked at, as one explicit immutable value.

VLA-Pruner (arXiv 2511.16449) forecasts the action-to-vision attention of the coming query from
earlier ones, because it is known only after the decode. Everything here is a pure function of
numpy arrays: the same inputs give bit-identical forecasts, with or without torch installed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import isfinite, prod
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jaxtyping import Float, Float32, Int
    from torch import Tensor

Hold = Literal["zero", "decay"]

NON_VISUAL_FLOOR = 1e-3
"""Least attention mass ascribed to non-visual tokens, so that odds stay finite."""


class HistoryError(ValueError):
    """Attention or indices that cannot become a history entry."""


class HistoryKey(NamedTuple):
    """What a history belongs to; when any of it changes, the history is void.

    Attributes:
        episode: number of the episode.
        instruction: what the robot is asked to do.
        grid: rows and columns of visual tokens per view.
        views: camera names, in order.
    """

    episode: int
    instruction: str
    grid: tuple[int, int]
    views: tuple[str, ...]

    @property
    def tokens(self) -> int:
        """Visual tokens of one view."""
        return prod(self.grid)


@dataclass(frozen=True)
class HistoryRule:
    """How a method remembers.

    Attributes:
        window: entries that a forecast looks back on.
        gamma: weight of an entry relative to the next newer one.
        hold: what a patch without attention gets: `zero`, or its last value times gamma (`decay`).
        normalise: store odds against non-visual tokens instead of raw probabilities.
        dense_warmup: run dense until the window is full.
        layer: decoder layer whose action rows are remembered; None for `default_action_layer`.
    """

    window: int = 3
    gamma: float = 0.8
    hold: Hold = "decay"
    normalise: bool = True
    dense_warmup: bool = False
    layer: int | None = None

    def __post_init__(self) -> None:
        """Check the fields."""
        if self.window < 1:
            raise HistoryError(f"window is {self.window}: remember at least one query")
        if not 0.0 < self.gamma <= 1.0:
            raise HistoryError(f"gamma is {self.gamma}: a decay lies in (0, 1]")
        if self.hold not in ("zero", "decay"):
            raise HistoryError(f"hold is {self.hold!r}: give 'zero' or 'decay'")
        whole = isinstance(self.layer, int) and not isinstance(self.layer, bool)
        if self.layer is not None and not whole:
            raise HistoryError(f"action_layer is {self.layer!r}: give the number of a layer")


@dataclass(frozen=True)
class PrunerState:
    """Everything a pruner carries from one query to the next.

    Attributes:
        entries: action attention of earlier queries, newest first, `[views, n]` each.
        queries: queries since the last reset.
        key: what the entries belong to; None before the first query.
        stamp_s: time of the last query, seconds; None before the first.
        memory: what the method's last selection remembered, and what its runtime keeps for it.
    """

    entries: tuple[Float32[np.ndarray, "views n"], ...] = ()
    queries: int = 0
    key: HistoryKey | None = None
    stamp_s: float | None = None
    memory: Mapping[str, Tensor] = field(default_factory=dict)


def fresh() -> PrunerState:
    """The state before the first query of an episode."""
    return PrunerState()


def default_action_layer(num_layers: int, cut: int) -> int:
    """Layer whose action rows are remembered: the released 15 of 32, scaled to the depth.

    `floor(15 / 32 * L)`, counted from 0, but not below the last full layer (`cut - 1`), whose
    action rows still see every token.
    """
    return max(15 * num_layers // 32, cut - 1)


def continue_or_reset(
    state: PrunerState, key: HistoryKey, stamp_s: float, max_gap_s: float = 5.0
) -> PrunerState:
    """The state to start a query with: the given one, or a fresh one when it does not belong here.

    Episode, instruction, grid or cameras that changed, time that ran backwards, or a gap of more
    than `max_gap_s` seconds void the history.
    """
    key = HistoryKey(*key)
    same, last_s = state.key == key, state.stamp_s
    if same and last_s is not None and 0.0 <= stamp_s - last_s <= max_gap_s:
        return PrunerState(state.entries, state.queries, key, stamp_s, state.memory)
    return PrunerState(key=key, stamp_s=stamp_s)


def forecast(
    state: PrunerState, window: int, gamma: float
) -> Float32[np.ndarray, "views n"] | None:
    """Attention that the next query is expected to pay: `sum_i gamma**i * entry_i`, newest i = 0.

    Returns None while nothing is remembered. The scale is arbitrary: a forecast is only ranked.
    """
    if not state.entries:
        return None
    total = state.entries[0].copy()
    for age, entry in enumerate(state.entries[1:window], 1):
        total += np.float32(gamma**age) * entry
    return total


def push(
    state: PrunerState,
    attention: Float[np.ndarray, "views k"],
    kept: Int[np.ndarray, "views k"],
    n: int,
    hold: Hold = "decay",
    *,
    window: int = 3,
    gamma: float = 0.8,
    normalise: bool = True,
) -> PrunerState:
    """Remember one query: scatter the attention of its kept tokens back to all `n` of each view.

    With `normalise`, probabilities become odds against everything that is not a visual token,
    `p[m] / (1 - sum of p over all kept tokens of all views)`. A softmax over fewer tokens inflates
    every survivor by the same factor, non-visual tokens (never pruned) included; the odds cancel
    that factor, so dense and pruned queries are on one scale.

    With `hold="decay"`, a token that was not there keeps its last known value times `gamma`, so a
    token that left can come back by its own history; the release writes 0.

    Raises:
        HistoryError: on shapes that do not match, indices outside the view, or attention that is
            not a finite probability.
    """
    values, mass = _checked(attention, kept, n)
    if normalise:
        values = values / np.float32(max(1.0 - mass, NON_VISUAL_FLOOR))
    if hold == "decay" and state.entries:
        entry = np.float32(gamma) * state.entries[0]
    else:
        entry = np.zeros((values.shape[0], n), np.float32)
    entry[np.arange(len(kept))[:, None], kept] = values
    entry.flags.writeable = False
    entries = (entry, *state.entries)[:window]
    return PrunerState(entries, state.queries + 1, state.key, state.stamp_s, state.memory)


def _checked(
    attention: np.ndarray, kept: np.ndarray, n: int
) -> tuple[Float32[np.ndarray, "views k"], float]:
    """The attention in fp32, and its sum."""
    if attention.ndim != 2 or attention.shape != kept.shape:
        raise HistoryError(
            f"attention {attention.shape} and kept {kept.shape} must both be [views, k]"
        )
    if kept.size and not (kept.min() >= 0 and kept.max() < n):
        raise HistoryError(f"kept indices {kept.min()}..{kept.max()} leave a view of {n} tokens")
    values = attention.astype(np.float32, copy=False)
    mass = float(values.sum(dtype=np.float64))  # not finite when any value is not
    if not isfinite(mass) or (values.size and values.min() < 0):
        raise HistoryError("action attention is not a finite probability: the model overflowed")
    return values, mass
