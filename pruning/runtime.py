"""A method paired with a decoder: what a policy's runtime calls around each query.

    state, forecast, dense = pruner.begin(state, key, stamp_s)
    selection = pruner.select(ctx)                       # unless `dense`: then every token lives
    state = pruner.finish(state, action_attention, kept)

The pruner itself carries no memory between queries; its counters only prove that it ran.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pruning.base import ROW_KINDS, Method, MethodError, everything, keeps_all
from pruning.history import (
    HistoryError,
    HistoryKey,
    PrunerState,
    continue_or_reset,
    default_action_layer,
    forecast,
    push,
)
from pruning.ladder import rungs
from pruning.topk import host_array, on_host

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jaxtyping import Float, Float32, Int
    from torch import Tensor

    from pruning.types import PruneContext, Selection


class Begun(NamedTuple):
    """What a query starts with.

    Attributes:
        state: the state of this query, reset when it did not belong here.
        forecast: expected action attention `[views, n]`; None when nothing is remembered.
        dense_warmup: True when every token must live until the history is filled.
    """

    state: PrunerState
    forecast: Float32[np.ndarray, "views n"] | None
    dense_warmup: bool


class Pruner:
    """One method on one decoder.

    Attributes:
        method: what chooses.
        cut: full decoder layers; the selection is gathered before layer `cut`.
        stages: every cut with its budget; the first one is at `cut`.
        action_layer: layer whose action rows `finish` takes; None when nothing is remembered.
        rows: row kinds whose attention at layer `cut - 1` the context must carry.
        row_stride: rows between two that are averaged; see `attention_rows`.
        calls: selections made.
        dense_warmup_calls: queries that ran dense to fill the history.

    Raises:
        MethodError: when the method cannot run on this decoder.
    """

    def __init__(
        self, method: Method, num_layers: int, causal: bool, max_gap_s: float = 5.0
    ) -> None:
        self.method = method
        self.stages = method.stages(num_layers, causal)
        self.cut = self.stages[0].cut
        self.rows = method.needs & ROW_KINDS
        if causal and "action" in self.rows:
            raise MethodError(
                f"{method.name} reads action rows at the cut, an autoregressive decoder has none "
                "there: remember earlier queries instead, or use parallel decoding"
            )
        self.action_layer = self._action_layer(num_layers)
        self.row_stride = method.row_stride
        self.max_gap_s = max_gap_s
        self.calls = 0
        self.dense_warmup_calls = 0

    def begin(self, state: PrunerState, key: HistoryKey, stamp_s: float) -> Begun:
        """Start a query: reset when the observation does not continue the last one, and forecast.

        Args:
            state: what the last query's `finish` gave.
            key: episode, instruction, grid, camera names of this observation.
            stamp_s: its time, seconds.
        """
        state = continue_or_reset(state, key, stamp_s, self.max_gap_s)
        rule = self.method.history
        if rule is None or not self.method.prunes:
            return Begun(state, None, False)
        if rule.dense_warmup and len(state.entries) < rule.window:
            self.dense_warmup_calls += 1
            return Begun(state, None, True)
        return Begun(state, forecast(state, rule.window, rule.gamma), False)

    def select(self, ctx: PruneContext) -> Selection:
        """Choose, and check what was chosen.

        Raises:
            MethodError: when the method broke its promise: sorted, unique, in range, exact count.
        """
        self.calls += 1
        if keeps_all(ctx) and not ctx.stage:
            return everything(ctx)
        selection = self.method.select(ctx)
        _check(self.method, selection, ctx)
        return selection

    def finish(
        self,
        state: PrunerState,
        action_attention: Float[np.ndarray, "views k"] | Tensor | None,
        kept: Int[np.ndarray, "views k"] | Tensor | None,
        memory: Mapping[str, Tensor] | None = None,
    ) -> PrunerState:
        """End a query: remember where its action rows looked.

        Args:
            state: what `begin` gave.
            action_attention: mean probability over heads and action rows, for the tokens that
                `action_layer` saw; unused when the method remembers nothing.
            kept: indices of these tokens. Where views kept different numbers, both are flat, and
                indices run over the views laid end to end.
            memory: what the selection remembered; None to keep the last one's.

        Raises:
            HistoryError: when a method with memory gets none, or the arrays do not match.
        """
        rule = self.method.history
        if memory is not None:
            state = replace(state, memory=memory)
        if rule is None or not self.method.prunes:
            return PrunerState((), state.queries + 1, state.key, state.stamp_s, state.memory)
        if state.key is None or action_attention is None or kept is None:
            raise HistoryError(
                f"{self.method.name} remembers action attention: pass the state of begin(), the "
                f"attention of layer {self.action_layer} and its tokens"
            )
        attention, index = _to_numpy(action_attention), _to_numpy(kept)
        views, tokens = len(state.key.views), state.key.tokens
        flat = index.ndim == 1
        if flat:  # one long view, for as long as it takes to write the entry
            state = replace(state, entries=tuple(entry.reshape(1, -1) for entry in state.entries))
            attention, index, tokens = attention[None], index[None], views * tokens
        state = push(
            state,
            attention,
            index,
            tokens,
            rule.hold,
            window=rule.window,
            gamma=rule.gamma,
            normalise=rule.normalise,
        )
        if not flat:
            return state
        return replace(state, entries=tuple(entry.reshape(views, -1) for entry in state.entries))

    def prove_active(self) -> None:
        """Refuse a result in which a method that prunes never chose anything.

        Raises:
            MethodError: when no selection was made.
        """
        if self.method.prunes and self.calls == 0:
            raise MethodError(
                f"{self.method.name} at keep {self.method.keep} never selected a token "
                f"({self.dense_warmup_calls} dense warm-up queries): the result is not a pruned one"
            )

    def _action_layer(self, num_layers: int) -> int | None:
        rule = self.method.history
        if rule is None:
            return None
        if rule.layer is None:
            return default_action_layer(num_layers, self.cut)
        if not self.cut - 1 <= rule.layer < num_layers:
            raise MethodError(
                f"action_layer is {rule.layer}: give {max(self.cut - 1, 0)} to {num_layers - 1} "
                f"(cut {self.cut} of {num_layers} layers)"
            )
        return rule.layer


def _check(method: Method, selection: Selection, ctx: PruneContext) -> None:
    kept, name = selection.kept, method.name
    groups, n = ctx.features.shape[0] // selection.views, ctx.features.shape[1] * selection.views
    want = (groups, ctx.keep * selection.views)
    own_count = method.adaptive and (
        kept.shape[1] in (0, *rungs(n, want[1])) or (selection.reuse and kept.shape[1] > want[1])
    )
    if tuple(kept.shape) != want and not (own_count and kept.shape[0] == groups):
        raise MethodError(f"{name} gave indices {tuple(kept.shape)}, the budget is {want}")
    if not on_host(kept) or not kept.numel():
        return
    index = kept.numpy()
    first, last = index[:, 0].tolist(), index[:, -1].tolist()
    if index.dtype.kind != "i" or min(first) < 0 or max(last) >= n:
        raise MethodError(f"{name} gave indices that leave a view of {n} tokens")
    if not (index[:, 1:] > index[:, :-1]).all():
        raise MethodError(f"{name} gave indices that are not sorted and unique")


def _to_numpy(array: np.ndarray | Tensor) -> np.ndarray:
    if isinstance(array, np.ndarray):
        return array
    array = array.detach().cpu()
    return host_array(array) if array.is_floating_point() else array.numpy()
