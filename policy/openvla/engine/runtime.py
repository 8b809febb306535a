"""One query through an engine's stages, on numpy alone.

    vision -> below -> select -> above -> head, or head and decode steps

What the eager runtime keeps inside (rows, caches, kept tokens) passes through the host here, or
stays on the device as handles that are passed on; the pruner's memory stays with the host in both.
Arrays of a session are its own again with its next run: what outlives that is copied.
"""

from __future__ import annotations

from math import isnan
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from policy.openvla.engine.rungs import graphs_of
from policy.openvla.sequence import layout_of
from policy.types import ObservationError
from pruning.topk import ScoreError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from jaxtyping import Float32, Int64

    from engines.manifest import Rung
    from engines.session import Session, Specs
    from policy.openvla.config import OpenVLAConfig
    from policy.openvla.stopwatch import Stopwatch
    from pruning.history import HistoryKey, PrunerState
    from pruning.runtime import Begun, Pruner

    Kept = Int64[np.ndarray, "v k"]

Arrays = dict[str, np.ndarray]
PAD_ID = 0
ARRIVING = {"arriving": "hidden", "traced": "trace"}
"""Inputs of a span of layers that another span has put out under another name."""


class Source(Protocol):
    """Gives sessions by graph name: an engine, or whoever compares one."""

    def session(self, graph: str) -> Session:
        """The session of a graph."""
        ...

    def load(self, graphs: Iterable[str]) -> None:
        """Open some sessions now."""
        ...


class EngineQuery(NamedTuple):
    """What the stages need for one query.

    Attributes:
        pixels: normalised frames.
        input_ids: prompt, BOS first, not padded.
        proprio: normalised proprioception, or None.
        key: what the pruner's memory belongs to.
        stamp_s: time of the observation, seconds.
    """

    pixels: Float32[np.ndarray, "1 c h w"]
    input_ids: Int64[np.ndarray, "1 t"]
    proprio: Float32[np.ndarray, "1 p"] | None
    key: HistoryKey
    stamp_s: float


class EngineAnswer(NamedTuple):
    """What one query gives; the same as the eager runtime's answer."""

    tokens: Int64[np.ndarray, " a"] | None
    values: Float32[np.ndarray, "chunk dof"] | None
    kept: Int64[np.ndarray, "v k"]
    state: PrunerState
    dense_warmup: bool
    sequence_tokens: int
    kept_sequence_tokens: int
    layer_sequence_tokens: float


class EngineRuntime:
    """One rung of an engine, paired with a pruner's memory. Holds no state between queries.

    Args:
        source: sessions by graph name.
        prompt_tokens: longest prompt of the graphs.
        config: the checkpoint's architecture.
        rung: what to run.
        pruner: its method, for memory and counters; the choice itself is a graph.

    Raises:
        EngineError, EngineMemoryError, EngineUnavailableError: when a stage cannot be loaded.
    """

    def __init__(
        self,
        source: Source,
        prompt_tokens: int,
        config: OpenVLAConfig,
        rung: Rung,
        pruner: Pruner,
    ) -> None:
        self.source, self.config, self.rung, self.pruner = source, config, rung, pruner
        source.load(graphs_of(rung))
        self._prompt = prompt_tokens
        every = np.arange(config.tokens_per_view, dtype=np.int64)
        self._all = np.broadcast_to(every, (len(config.views), len(every)))

    def run(self, query: EngineQuery, state: PrunerState, clock: Stopwatch) -> EngineAnswer:
        """Run one query, marking phases on `clock`."""
        begun = self.pruner.begin(state, query.key, query.stamp_s)
        have, dense = self._inputs(query), begun.dense_warmup
        self._stage("vision", have)
        clock.mark("vision")
        walk = self._whole if "prefill" in self.rung.stages else self._stretches
        kept, seen = walk(begun, have, clock)
        self._stage("head", have)
        if "decode" in self.rung.stages:
            self._decode(have, "warmup_decode" if dense else "decode")
        clock.mark("decode" if self.config.decoding == "autoregressive" else "head")
        state = self.pruner.finish(begun.state, have.get("action_attention"), seen)
        if self.pruner.method.history is not None:
            clock.mark("memory")
        return self._answer(query, have, kept, state, dense)

    def _stretches(self, begun: Begun, have: Arrays, clock: Stopwatch) -> tuple[Kept, Kept | None]:
        """Layers and choices one by one; what lives at last, and what the action layer saw."""
        seen = self._all if "action_attention" in self._stage("below", have) else None
        clock.mark("prefill_below")
        alive = self._all
        if "select" in self.rung.stages and not begun.dense_warmup:
            for number in range(len(self.pruner.stages)):
                alive = self._choose(number, begun, have, alive)
                clock.mark("selection")
                seen = alive if self._next(number, have) else seen
                clock.mark("prefill_above")
            return alive, seen
        role = "warmup_above" if begun.dense_warmup else "above"
        if "action_attention" in self._stage(role, have):
            seen = self._all
        clock.mark("prefill_above")
        return alive, seen

    def _whole(self, begun: Begun, have: Arrays, clock: Stopwatch) -> tuple[Kept, Kept | None]:
        """The same as one graph; what happens inside has one phase of its own."""
        role = "warmup_prefill" if begun.dense_warmup else "prefill"
        if begun.forecast is not None:
            have["history"] = begun.forecast
        elif "prefill_cold" in self.rung.stages and not begun.dense_warmup:
            role = "prefill_cold"
        found = self._stage(role, have)
        self.pruner.calls += len(self.pruner.stages) if "alive" in found else 0
        clock.mark("prefill")
        alive = have.get("alive", self._all)
        if "action_attention" not in found:
            return alive, None
        full = have["action_attention"].shape == self._all.shape
        return alive, self._all if full else have.get("seen", alive)

    def _answer(
        self, query: EngineQuery, have: Arrays, kept: Kept, state: PrunerState, dense_warmup: bool
    ) -> EngineAnswer:
        layout = layout_of(self.config, query.input_ids.shape[1] - 1)
        stages, n = self.pruner.stages, layout.tokens
        short = kept.shape[1] < n
        tokens = [n, *(min(n, stage.keep.tokens(n)) for stage in stages)] if short else [n]
        cuts = [0, *(stage.cut for stage in stages)][: len(tokens)]
        layers = self.config.text.num_hidden_layers
        lengths = [layout.length - layout.visual + layout.views * count for count in tokens]
        spans = zip(cuts, [*cuts[1:], layers], lengths, strict=True)
        return EngineAnswer(
            _own(have.get("tokens")),
            _own(have.get("values")),
            np.array(kept),
            state,
            dense_warmup,
            lengths[0],
            lengths[-1],
            sum((last - first) * length for first, last, length in spans) / layers,
        )

    def _inputs(self, query: EngineQuery) -> Arrays:
        """The prompt, padded on its left behind BOS, and everything else as it is."""
        ids, most = query.input_ids[0], self._prompt
        prompt = len(ids) - 1
        if prompt > most:
            raise ObservationError(
                f"instruction is too long: its prompt has {prompt} tokens, the engine was built "
                f"for {most}; say it in fewer words, or export with --prompt-tokens {prompt}"
            )
        padded = np.full((1, 1 + most), PAD_ID, np.int64)
        padded[0, 0], padded[0, 1 + most - prompt :] = ids[0], ids[1:]
        have = {
            "pixels": query.pixels,
            "input_ids": padded,
            "prompt": np.array([prompt], np.int64),
        }
        return have if query.proprio is None else have | {"proprio": query.proprio}

    def _session(self, role: str) -> Session:
        return self.source.session(self.rung.stages[role])

    def _stage(self, role: str, have: Arrays) -> Specs:
        """Run a stage on what is there, and add what it gives; tells what that is."""
        session = self._session(role)
        have |= session.run({name: have[ARRIVING.get(name, name)] for name in session.inputs})
        return session.outputs

    def _choose(
        self, number: int, begun: Begun, have: Arrays, present: Int64[np.ndarray, "v n"]
    ) -> Int64[np.ndarray, "v k"]:
        """Let the method's graph choose among what is there; a NaN must not rank anything."""
        role, have["present"] = f"select{number or ''}", present
        if begun.forecast is not None:
            have["history"] = begun.forecast
        elif f"{role}_cold" in self.rung.stages:
            role += "_cold"
        session, feeds = self._session(role), {}
        for name in session.inputs:
            feeds[name] = have[name]
            if name.startswith("attention_") and isnan(np.add.reduce(have[name], None)):
                raise ScoreError(f"scores of {name} rows are NaN: the model overflowed")
        have |= session.run(feeds)
        self.pruner.calls += 1
        kept = have["kept"]
        return kept if present is self._all else np.take_along_axis(present, kept, 1)

    def _next(self, number: int, have: Arrays) -> bool:
        """Run the layers behind a cut; tells whether the action layer was among them."""
        ends = number + 1 == len(self.pruner.stages)
        return "action_attention" in self._stage("above" if ends else f"middle{number + 1}", have)

    def _decode(self, have: Arrays, role: str) -> None:
        """Action tokens after the first, one by one; the host writes the caches."""
        session, tokens = self._session(role), [have["tokens"].copy()]
        looks = [have["action_attention"].copy()] if "action_attention" in have else []
        feeds = {name: have[name] for name in session.inputs if name not in ("token", "step")}
        caches = [name for name in feeds if name.startswith(("keys_", "values_"))]
        ends = {name: feeds[name].shape[2] - (self.config.dof - 1) for name in caches}
        for step in range(self.config.dof - 1):
            feeds |= {"token": tokens[-1], "step": np.array([step], np.int64)}
            out = session.run(feeds)
            for name in caches:
                _put(feeds[name], ends[name] + step, out[f"new_{name}"])
            tokens.append(out["next"].copy())
            looks += [out["action_attention"].copy()] if looks else []
        have["tokens"] = np.concatenate(tokens)
        if looks:
            have["action_attention"] = np.mean(looks, axis=0)


def _own(array: np.ndarray | None) -> np.ndarray | None:
    """A copy that no session writes into."""
    return None if array is None else np.array(array)


def _put(cache: Any, slot: int, new: Any) -> None:
    """Put the keys or values of one token into their slot, on the host or on the device."""
    if isinstance(cache, np.ndarray):
        cache[:, :, slot] = new[:, :, 0]
    else:
        cache.put(slot, new)
