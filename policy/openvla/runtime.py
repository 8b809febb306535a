"""One query through the network, with visual tokens leaving at the cut.

    vision -> lower layers -> scores, selection, gather -> upper layers -> head or decode

The decoder always runs on fused attention. Rows that a pruner reads are recomputed from the
queries and keys of one layer, for these rows only, and their cost is booked as `selection`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch

from policy.openvla.walk import Walk
from pruning.types import PruneContext

if TYPE_CHECKING:
    from jaxtyping import Float, Float32, Int64
    from torch import Tensor

    from policy.openvla.model import OpenVLAModel
    from policy.openvla.stopwatch import Stopwatch
    from pruning.history import HistoryKey, PrunerState
    from pruning.runtime import Begun, Pruner

EPISODE_SEED_STRIDE = 1_000_003


@dataclass(frozen=True)
class Query:
    """What the network needs for one query.

    Attributes:
        pixels: normalised frames, 3 channels per tower and view.
        input_ids: prompt, BOS first.
        proprio: normalised proprioception, or None.
        key: what the pruner's memory belongs to.
        stamp_s: time of the observation, seconds.
    """

    pixels: Float32[Tensor, "1 c h w"]
    input_ids: Int64[Tensor, "1 t"]
    proprio: Float32[Tensor, "1 p"] | None
    key: HistoryKey
    stamp_s: float


class Answer(NamedTuple):
    """What one query gives: action tokens or continuous values, survivors, the next state."""

    tokens: Int64[Tensor, " a"] | None
    values: Float[Tensor, "chunk dof"] | None
    kept: Int64[Tensor, "v k"]
    state: PrunerState
    dense_warmup: bool
    sequence_tokens: int
    kept_sequence_tokens: int


class Runtime:
    """A model paired with a pruner. Holds no state between queries."""

    def __init__(self, model: OpenVLAModel, pruner: Pruner) -> None:
        self.model, self.pruner = model.eval(), pruner
        device = next(model.parameters()).device
        self.synchronize = torch.cuda.synchronize if device.type == "cuda" else None

    @torch.inference_mode()
    def run(self, query: Query, state: PrunerState, clock: Stopwatch) -> Answer:
        """Run one query, marking phases on `clock`."""
        model, pruner = self.model, self.pruner
        begun = pruner.begin(state, query.key, query.stamp_s)
        text = model.text(query.input_ids)
        visual = model.see(query.pixels, text)
        clock.mark("vision")
        remembers = pruner.action_layer is not None and pruner.method.prunes
        walk = Walk(
            model, model.layout(query.input_ids), pruner.action_layer if remembers else None
        )
        walk.enter(model.sequence(visual, text, query.proprio))
        walk.through(range(pruner.cut), probe=pruner.cut - 1)
        clock.mark("prefill_below")
        if pruner.method.prunes and not begun.dense_warmup:
            walk.keep_only(self._choose(walk, visual[0], begun, query.key.episode))
            clock.mark("selection")
        walk.through(range(pruner.cut, len(walk.layers)))
        clock.mark("prefill_above")
        tokens, values = walk.decode(clock) if model.causal else walk.parallel(clock)
        seen = walk.action_attention() if remembers else (None, None)
        state = pruner.finish(begun.state, *seen)
        clock.mark("selection")
        return Answer(
            tokens,
            values,
            walk.survivors(),
            state,
            begun.dense_warmup,
            walk.layout.length,
            walk.layout.length - walk.gone,
        )

    def _choose(
        self, walk: Walk, visual: Float[Tensor, "v n d"], begun: Begun, episode: int
    ) -> Int64[Tensor, "v k"]:
        """Ask the method which tokens of every view live."""
        pruner = self.pruner
        attention = walk.attention_at_cut(pruner.rows, pruner.row_stride) if pruner.rows else {}
        forecast = begun.forecast
        context = PruneContext(
            features=visual.float(),
            keep=pruner.method.budget.tokens(visual.shape[1]),
            attention=attention,
            history=None if forecast is None else torch.from_numpy(forecast).to(visual.device),
            seed=begun.state.queries + EPISODE_SEED_STRIDE * episode,
        )
        return pruner.select(context).kept
