"""One query through an engine's stages, on numpy alone.

    vision -> below -> select -> above -> head, or head and decode steps

What the eager runtime keeps inside (rows, caches, kept tokens) passes through the host here; the
pruner's memory stays with the host in both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from policy.openvla.engine.rungs import graphs_of
from policy.openvla.sequence import layout_of
from policy.types import ObservationError
from pruning.topk import ScoreError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from jaxtyping import Float32, Int64

    from engines.manifest import Rung
    from engines.session import Session
    from policy.openvla.config import OpenVLAConfig
    from policy.openvla.stopwatch import Stopwatch
    from pruning.history import HistoryKey, PrunerState
    from pruning.runtime import Begun, Pruner

Arrays = dict[str, np.ndarray]
PAD_ID = 0


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
        pruner, prompt = self.pruner, query.input_ids.shape[1] - 1
        begun = pruner.begin(state, query.key, query.stamp_s)
        have = self._inputs(query)
        self._stage("vision", have)
        clock.mark("vision")
        self._stage("below", have)
        clock.mark("prefill_below")
        chosen = "select" in self.rung.stages and not begun.dense_warmup
        if chosen:
            self._choose(begun, have)
            clock.mark("selection")
        kept = have["kept"] if chosen else self._all
        self._stage("warmup_above" if begun.dense_warmup else "above", have)
        clock.mark("prefill_above")
        self._stage("head", have)
        if "decode" in self.rung.stages:
            self._decode(have, "warmup_decode" if begun.dense_warmup else "decode")
        clock.mark("decode" if self.config.decoding == "autoregressive" else "head")
        state = self._remember(begun, have, kept)
        clock.mark("selection")
        layout = layout_of(self.config, prompt)
        gone = layout.visual - kept.size
        return EngineAnswer(
            have.get("tokens"), have.get("values"), kept, state, begun.dense_warmup,
            layout.length, layout.length - gone,
        )  # fmt: skip

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

    def _stage(self, role: str, have: Arrays) -> None:
        """Run a stage on what is there, and add what it gives."""
        session = self._session(role)
        have |= session.run({name: have[name] for name in session.inputs})

    def _choose(self, begun: Begun, have: Arrays) -> None:
        """Let the method's graph choose; a NaN must not rank anything."""
        cold = begun.forecast is None and "select_cold" in self.rung.stages
        if begun.forecast is not None:
            have["history"] = begun.forecast
        for name, scores in have.items():
            if name.startswith("attention_") and np.isnan(scores.sum()):
                raise ScoreError(f"scores of {name} rows are NaN: the model overflowed")
        self._stage("select_cold" if cold else "select", have)
        self.pruner.calls += 1

    def _decode(self, have: Arrays, role: str) -> None:
        """Action tokens after the first, one by one; the host writes the caches."""
        session, tokens = self._session(role), [have["tokens"]]
        looks = [have["action_attention"]] if "action_attention" in have else []
        feeds = {name: have[name] for name in session.inputs if name not in ("token", "step")}
        caches = [name for name in feeds if name.startswith(("keys_", "values_"))]
        ends = {name: feeds[name].shape[2] - (self.config.dof - 1) for name in caches}
        for step in range(self.config.dof - 1):
            feeds |= {"token": tokens[-1], "step": np.array([step], np.int64)}
            out = session.run(feeds)
            for name in caches:
                feeds[name][:, :, ends[name] + step] = out[f"new_{name}"][:, :, 0]
            tokens.append(out["next"])
            looks += [out["action_attention"]] if looks else []
        have["tokens"] = np.concatenate(tokens)
        if looks:
            have["action_attention"] = np.mean(looks, axis=0)

    def _remember(self, begun: Begun, have: Arrays, kept: Int64[np.ndarray, "v k"]) -> PrunerState:
        """Hand the pruner what the action rows looked at, with the tokens that their layer saw."""
        pruner, looked = self.pruner, have.get("action_attention")
        layer = pruner.action_layer
        full = layer is not None and layer < pruner.cut
        return pruner.finish(begun.state, looked, self._all if full else kept)
