"""What an answer looked at, remembered for the next one to the same question.

For a language model that decodes actions as tokens, the rows that decode are the action rows: the
last one of the prompt, and one per token since. Their attention is recomputed at one layer, for
these rows only, and becomes history when the next picture comes with the same prompt.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from pruning.adapters.heads import Phases, by_head, rotate, scaled
from pruning.attention_rows import attention_rows
from pruning.history import HistoryKey, PrunerState, forecast

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaxtyping import Bool, Float, Float32, Int64
    from torch import Tensor

    from pruning.adapters.layout import View
    from pruning.adapters.walk import Walk
    from pruning.history import HistoryRule
    from pruning.runtime import Pruner

    Owner = tuple[int, int, int]


class Glance(NamedTuple):
    """What one view has been given so far: its columns in the cache, and who is there."""

    columns: slice
    kept: Int64[Tensor, " k"]
    total: Float32[Tensor, " k"]


class Recall:
    """The history of a session, by sample and size of views.

    Args:
        pruner: of a method with history.
        rule: how it remembers.
        attention: self-attention of the layer whose rows are remembered.
    """

    def __init__(self, pruner: Pruner, rule: HistoryRule, attention: Any) -> None:
        self.pruner, self.rule, self.attention = pruner, rule, attention
        self.states: dict[Owner, PrunerState] = {}
        self._open: dict[Owner, list[Glance]] = {}
        self._rows = 0

    def turn(self, same: bool) -> None:
        """A prefill begins; with the `same` prompt as the last, what was open becomes history."""
        if not same:
            self.states = {}
        elif self._rows:
            for owner, glances in self._open.items():
                self.states[owner] = self._closed(owner, glances)
        self._open, self._rows = {}, 0

    @property
    def dense(self) -> bool:
        """True when every token must live until the history is filled."""
        least = min((len(state.entries) for state in self.states.values()), default=0)
        return self.rule.dense_warmup and least < self.rule.window

    def expected(self, views: Sequence[View]) -> Float[Tensor, "g n"] | None:
        """Forecasts for the views of a context; None when one is not known yet."""
        owners = list(dict.fromkeys((v.row, v.kind, v.tokens) for v in views))
        states = [self.states.get(owner, PrunerState()) for owner in owners]
        found = [forecast(state, self.rule.window, self.rule.gamma) for state in states]
        known = [torch.from_numpy(one) for one in found if one is not None]
        device = next(self.attention.parameters()).device
        return torch.cat(known).to(device) if len(known) == len(found) else None

    def prefill(self, walk: Walk) -> None:
        """The last row of every prompt, while the layer runs."""
        self._open, self._rows = {}, 1
        for number, row in enumerate(walk.rows):
            if not row.views:
                continue
            q, k = walk.probed(number, walk.layer)
            seen = attention_rows(q[:, :, -1:], k, LAST, slice(None))["last"][0]
            for view in row.views:
                start = row.start_of(view)
                at = view.first if walk.zone is None else start
                kept = torch.arange(view.tokens) if view.kept is None else view.kept
                owner = (view.row, view.kind, view.tokens)
                glance = Glance(
                    slice(at, at + view.living), kept, seen[start : start + view.living]
                )
                self._open.setdefault(owner, []).append(glance)

    def step(
        self, q: Tensor, keys: Tensor, phases: Phases, valid: Bool[Tensor, "b t"] | None
    ) -> None:
        """One decoded token per sample.

        Args:
            q: queries before rotation, as the layer's tap gives them.
            keys: rotated keys of the layer's cache, this token's too.
            phases: rotary phases of this token.
            valid: False at keys that no row sees.
        """
        queries, zero = by_head(q, self.attention), torch.zeros(1, dtype=torch.int64)
        turned = torch.stack(
            [
                rotate(row, phases.of(at, zero.to(row.device), self.attention))
                for at, row in enumerate(queries)
            ]
        )
        turned = scaled(turned, self.attention)
        seen = attention_rows(turned, keys, LAST, slice(None), key_mask=valid)["last"]
        self._rows += 1
        for owner, glances in self._open.items():
            self._open[owner] = [
                one._replace(total=one.total + seen[owner[0], one.columns]) for one in glances
            ]

    def _closed(self, owner: Owner, glances: list[Glance]) -> PrunerState:
        """The sample's state with one more entry."""
        views = tuple(str(at) for at in range(len(glances)))
        key = HistoryKey(0, "", (1, owner[2]), views)
        state = self.states.get(owner, PrunerState(key=key))
        means = [one.total / self._rows for one in glances]
        kept = [one.kept.to(mean.device) for one, mean in zip(glances, means, strict=True)]
        if len({len(one) for one in kept}) == 1:
            return self.pruner.finish(state, torch.stack(means), torch.stack(kept))
        flat = torch.cat([one + at * owner[2] for at, one in enumerate(kept)])
        return self.pruner.finish(state, torch.cat(means), flat)


LAST = {"last": slice(None)}
