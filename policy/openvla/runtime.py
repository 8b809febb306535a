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
from policy.openvla.sight import look
from policy.openvla.walk import Walk, advance, decode, parallel

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaxtyping import Float, Float32, Int64
    from torch import Tensor

    from policy.openvla.model import OpenVLAModel
    from policy.openvla.sight import Sight
    from policy.openvla.stopwatch import Stopwatch
    from policy.openvla.walk import Kept
    from pruning.base import Stage
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


class _Lane(NamedTuple):
    """One query on its way: what it began with, what it sees, how far it is."""

    query: Query
    text: Float[Tensor, "1 t d"]
    begun: Begun
    sight: Sight
    walk: Walk
    prunes: bool
    memory: dict[str, Tensor]


class Runtime:
    """A model paired with a pruner. Holds no state between queries."""

    def __init__(self, model: OpenVLAModel, pruner: Pruner) -> None:
        self.model, self.pruner = model.eval(), pruner
        device = next(model.parameters()).device
        self.synchronize = torch.cuda.synchronize if device.type == "cuda" else None

    def run(self, query: Query, state: PrunerState, clock: Stopwatch) -> Answer:
        """Run one query, marking phases on `clock`."""
        return self.run_batch([query], [state], clock)[0]

    @torch.inference_mode()
    def run_batch(
        self, queries: Sequence[Query], states: Sequence[PrunerState], clock: Stopwatch
    ) -> list[Answer]:
        """Run some queries side by side, marking phases of all of them on `clock`.

        Vision runs as one batch, and so do the layers wherever sequences are of one length;
        what lives is chosen for every query by itself.
        """
        model, pruner = self.model, self.pruner
        lanes = self._lanes(queries, states)
        walks = [lane.walk for lane in lanes]
        clock.mark("vision")
        for lane in lanes:
            visual, proprio = lane.sight.visual[None], lane.query.proprio
            lane.walk.enter(model.sequence(visual, lane.text, proprio))
        advance(walks, pruner.cut, probe=pruner.cut - 1)
        clock.mark("prefill_below")
        self._prune([lane for lane in lanes if lane.prunes], clock)
        advance(walks, len(walks[0].layers))
        clock.mark("prefill_above")
        decoded = decode(walks, clock) if model.causal else parallel(walks, clock)
        answers = [self._answer(lane, *said) for lane, said in zip(lanes, decoded, strict=True)]
        if self._remembers:
            clock.mark("memory")
        return answers

    def _lanes(self, queries: Sequence[Query], states: Sequence[PrunerState]) -> list[_Lane]:
        """Every query with what it needs on its way, seen and not yet begun."""
        model, pruner = self.model, self.pruner
        method = pruner.method
        begun = [
            pruner.begin(state, query.key, query.stamp_s)
            for query, state in zip(queries, states, strict=True)
        ]
        needs = [method.needs if method.prunes and not b.dense_warmup else () for b in begun]
        texts = [model.text(query.input_ids) for query in queries]
        sights = look(model, [query.pixels for query in queries], texts, needs)
        remembered = pruner.action_layer if self._remembers else None
        lanes = []
        for query, text, start, sight in zip(queries, texts, begun, sights, strict=True):
            trace = pruner.cut - 1 if "transition" in sight.needs else None
            walk = Walk(model, model.layout(query.input_ids), remembered, trace)
            prunes = method.prunes and not start.dense_warmup
            lanes.append(_Lane(query, text, start, sight, walk, prunes, {}))
        return lanes

    @property
    def _remembers(self) -> bool:
        return self.pruner.action_layer is not None and self.pruner.method.prunes

    def _prune(self, lanes: Sequence[_Lane], clock: Stopwatch) -> None:
        """Let tokens leave at every cut, and note what the method wants to remember."""
        for number, stage in enumerate(self.pruner.stages):
            lanes = [lane for lane in lanes if lane.walk.alive]
            if not lanes:
                return
            advance([lane.walk for lane in lanes], stage.cut, probe=stage.cut - 1)
            clock.mark("prefill_above" if number else "prefill_below")
            for lane in lanes:
                self._choose(lane, number, stage)
            clock.mark("selection")

    def _choose(self, lane: _Lane, number: int, stage: Stage) -> None:
        """Let tokens of one query leave at one cut."""
        pruner, walk, begun = self.pruner, lane.walk, lane.begun
        history, memory = None, begun.state.memory
        if begun.forecast is not None:
            history = lane.sight.living(walk, torch.from_numpy(begun.forecast))
        context = lane.sight.context(
            walk,
            stage.cut,
            pruner.row_stride,
            needs=pruner.method.stage_needs(number),
            keep=min(stage.keep.tokens(walk.layout.tokens), walk.alive // walk.layout.views),
            history=history,
            seed=begun.state.queries + EPISODE_SEED_STRIDE * lane.query.key.episode,
            memory=memory if number == 0 else {},
            stage=number,
        )
        selection = pruner.select(context)
        lane.memory.update(selection.memory)
        if selection.reuse:
            walk.reuse_others(selection.kept, stage.cut, kv_before(memory))
        else:
            walk.keep_only(selection)

    def _answer(self, lane: _Lane, tokens: Tensor | None, values: Tensor | None) -> Answer:
        """What a query gives once its actions are known."""
        walk = lane.walk
        memory = {**lane.memory, **walk.to_reuse()} if lane.prunes else None
        attention, seen = walk.action_attention() if self._remembers else (None, None)
        return Answer(
            tokens,
            values,
            walk.survivors(),
            self.pruner.finish(lane.begun.state, attention, seen, memory),
            lane.begun.dense_warmup,
            walk.layout.length,
            walk.layout.length - walk.gone,
            walk.tokens_seen / len(walk.layers),
        )
