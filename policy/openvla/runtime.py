"""One query through the network, with visual tokens leaving at the cut.

    vision -> lower layers -> scores, selection, gather -> upper layers -> head or decode -> memory

The decoder always runs on fused attention. Rows that a pruner reads are recomputed from the
queries and keys of one layer, for these rows only; their cost is booked as `selection`, or as
`memory` where they are for the next query.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch

from policy.openvla.reuse import remembered as kv_before
from policy.openvla.sight import Sight
from policy.openvla.walk import Walk

if TYPE_CHECKING:
    from jaxtyping import Float, Float32, Int64
    from torch import Tensor

    from policy.openvla.model import OpenVLAModel
    from policy.openvla.stopwatch import Stopwatch
    from policy.openvla.walk import Kept
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
    """What one query gives: action tokens or continuous values, survivors, the next state.

    Survivors are one tensor, or one per view where views kept different numbers.
    """

    tokens: Int64[Tensor, " a"] | None
    values: Float[Tensor, "chunk dof"] | None
    kept: Kept
    state: PrunerState
    dense_warmup: bool
    sequence_tokens: int
    kept_sequence_tokens: int
    layer_sequence_tokens: float


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
        prunes = pruner.method.prunes and not begun.dense_warmup
        text = model.text(query.input_ids)
        sight = Sight(model, query.pixels, text, pruner.method.needs if prunes else ())
        clock.mark("vision")
        remembers = pruner.action_layer is not None and pruner.method.prunes
        traces = "transition" in sight.needs
        walk = Walk(
            model,
            model.layout(query.input_ids),
            pruner.action_layer if remembers else None,
            pruner.cut - 1 if traces else None,
        )
        walk.enter(model.sequence(sight.visual[None], text, query.proprio))
        walk.through(range(pruner.cut), probe=pruner.cut - 1)
        clock.mark("prefill_below")
        memory = self._prune(sight, walk, begun, query.key.episode, clock) if prunes else None
        walk.through(range(walk.layers_done, len(walk.layers)))
        clock.mark("prefill_above")
        tokens, values = walk.decode(clock) if model.causal else walk.parallel(clock)
        if memory is not None:
            memory |= walk.to_reuse()
        attention, seen = walk.action_attention() if remembers else (None, None)
        state = pruner.finish(begun.state, attention, seen, memory)
        if remembers:
            clock.mark("memory")
        return Answer(
            tokens,
            values,
            walk.survivors(),
            state,
            begun.dense_warmup,
            walk.layout.length,
            walk.layout.length - walk.gone,
            walk.tokens_seen / len(walk.layers),
        )

    def _prune(
        self, sight: Sight, walk: Walk, begun: Begun, episode: int, clock: Stopwatch
    ) -> dict[str, Tensor]:
        """Let tokens leave at every cut; returns what the method wants to remember."""
        pruner, memory = self.pruner, begun.state.memory
        tokens = walk.layout.tokens
        remembered: dict[str, Tensor] = {}
        for number, stage in enumerate(pruner.stages):
            walk.through(range(walk.layers_done, stage.cut), probe=stage.cut - 1)
            clock.mark("prefill_above" if number else "prefill_below")
            if not walk.alive:
                break
            history = None
            if begun.forecast is not None:
                history = sight.living(walk, torch.from_numpy(begun.forecast))
            context = sight.context(
                walk,
                stage.cut,
                pruner.row_stride,
                needs=pruner.method.stage_needs(number),
                keep=min(stage.keep.tokens(tokens), walk.alive // walk.layout.views),
                history=history,
                seed=begun.state.queries + EPISODE_SEED_STRIDE * episode,
                memory=memory if number == 0 else {},
                stage=number,
            )
            selection = pruner.select(context)
            remembered |= selection.memory
            if selection.reuse:
                walk.reuse_others(selection.kept, stage.cut, kv_before(memory))
            else:
                walk.keep_only(selection)
            clock.mark("selection")
        return remembered
