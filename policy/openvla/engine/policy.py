"""A policy that runs on an engine: numpy and the engine's runtime, no torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from engines.artefact import Engine, open_ort
from engines.errors import EngineError, EngineMemoryError
from engines.session import runtime_name
from policy.openvla.config import load_config
from policy.openvla.contract import Contract
from policy.openvla.engine.plan import pruner_of
from policy.openvla.engine.rungs import find_rung, graphs_of, next_lower
from policy.openvla.engine.runtime import EngineAnswer, EngineQuery, EngineRuntime
from policy.openvla.stopwatch import Stopwatch
from policy.openvla.tokenizer import PromptTokenizer
from policy.types import Inference, Timing
from pruning.registry import make_method

if TYPE_CHECKING:
    from engines.artefact import Opener
    from engines.manifest import Rung
    from policy.types import Observation
    from pruning.base import Method
    from pruning.history import PrunerState

FAMILY = "openvla"
RESIDENT = frozenset({"visual", "text", "hidden", "rows", "trace", "tower", "tower_keys"})
"""What only stages read. Rows that a choice or a memory reads on the host come back."""
RESIDENT_KINDS = ("keys_", "values_", "new_keys_", "new_values_")


def stays_on_device(name: str) -> bool:
    """Whether a tensor passes from stage to stage without the host."""
    return name in RESIDENT or name.startswith(RESIDENT_KINDS)


def open_plans(folder: Path) -> Opener:
    """Opens the TensorRT plans of an engine's graphs, tensors between them on the device."""
    from engines.tensorrt.plans import Plans

    return Plans(folder, resident=stays_on_device)


class EnginePolicy(Contract):
    """A rung of an engine as a policy; the same phases, counters and memory as the eager one.

    Attributes:
        engine: the engine, with its manifest.
        rung: what runs.
        pruner: the method at work, with its counters.
        lowered: how often a smaller budget was taken because memory ran out.

    Args:
        engine: a checked engine folder.
        method: which visual tokens live; must be a rung of the engine.
        unnorm_key: data set whose statistics give actions their units.
        lower_when_full: take the next smaller budget, once per query, when memory runs out.

    Raises:
        EngineError: when the engine is of another family, or has no such rung.
        EngineMemoryError, EngineUnavailableError: when this machine cannot load it.
    """

    def __init__(
        self,
        engine: Engine,
        method: Method,
        unnorm_key: str | None = None,
        *,
        lower_when_full: bool = False,
    ) -> None:
        if engine.manifest.family != FAMILY:
            raise EngineError(
                f"{engine.folder} is of family {engine.manifest.family!r}, {FAMILY!r} is needed"
            )
        files = engine.folder / "policy"
        config = load_config(files)
        super().__init__(config, PromptTokenizer(files, config), unnorm_key)
        self.engine, self.lowered, self._may_lower = engine, 0, lower_when_full
        self._use(find_rung(engine.manifest, method, config), method)

    @classmethod
    def from_folder(
        cls,
        folder: str | Path,
        *,
        method: Method | None = None,
        unnorm_key: str | None = None,
        threads: int = 1,
        provider: str = "cpu",
        allow_cpu: bool = False,
        plans: str | Path | None = None,
        opener: Opener | None = None,
    ) -> EnginePolicy:
        """Load an engine folder.

        Args:
            folder: what `leanvla export` wrote.
            method: a rung of it; dense by default.
            unnorm_key: data set whose statistics give actions their units.
            threads: processor threads of the runtime.
            provider: ONNX Runtime's: `cpu`, `cuda` or `tensorrt`.
            allow_cpu: go on with the CPU when the provider is missing.
            plans: folder of TensorRT plans that `leanvla build` made from this engine; they run
                instead of its graphs.
            opener: makes a session from a graph's path, instead of ONNX Runtime.
        """
        if plans is not None and opener is None:
            opener = open_plans(Path(plans))
        start = opener or open_ort(provider=provider, threads=threads, allow_cpu=allow_cpu)
        return cls(Engine(folder, start), method or make_method("dense"), unnorm_key)

    def beside(self, method: str, keep: float) -> EnginePolicy:
        """Another rung of the same engine. Both share its stages: one query at a time.

        Raises:
            EngineError: when the engine has no such rung.
        """
        return EnginePolicy(self.engine, make_method(method, keep=keep), self.normalizer.key)

    @property
    def runs_on(self) -> str:
        """Runtime, device and precision, e.g. `onnxruntime cpu fp32`."""
        session = self.engine.session(graphs_of(self.rung)[0])
        return f"{runtime_name(session.provider)} {self.engine.manifest.precision}"

    def infer(self, observation: Observation, state: PrunerState) -> Inference:
        """Run one query.

        Raises:
            ObservationError: when the observation lacks a view or proprioception, or its prompt is
                longer than the engine was built for.
            EngineMemoryError: when memory ran out, and no smaller budget may be taken.
        """
        observation.check_against(self.observation_spec)
        clock = Stopwatch()
        query = EngineQuery(
            self.processor(observation.images),
            self.prompt_ids(observation.instruction),
            self.proprio(observation),
            self.history_key(observation),
            observation.stamp_s,
        )
        clock.mark("preprocess")
        answer = self._run(query, state, clock)
        chunk = self.chunk(answer.tokens, answer.values, answer.kept)
        clock.mark("postprocess")
        timing = Timing(
            query_ms=clock.total_ms,
            phase_ms=clock.phase_ms,
            visual_tokens=len(self.config.views) * self.config.tokens_per_view,
            kept_tokens=answer.kept.size,
            dense_warmup=answer.dense_warmup,
            sequence_tokens=answer.sequence_tokens,
            kept_sequence_tokens=answer.kept_sequence_tokens,
            layer_sequence_tokens=answer.layer_sequence_tokens,
            spans=tuple(clock.spans),
        )
        return Inference(chunk, answer.state, timing)

    def _use(self, rung: Rung, method: Method) -> None:
        self.rung, self.pruner = rung, pruner_of(method, self.config)
        self.runtime = EngineRuntime(
            self.engine, self.engine.manifest.prompt_tokens, self.config, rung, self.pruner
        )

    def _run(self, query: EngineQuery, state: PrunerState, clock: Stopwatch) -> EngineAnswer:
        try:
            return self.runtime.run(query, state, clock)
        except EngineMemoryError:
            lower = next_lower(self.engine.manifest, self.rung)
            if not self._may_lower or lower is None:
                self.engine.close()
                raise
            self.engine.release(set(graphs_of(self.rung)) - set(graphs_of(lower)))
            self._use(lower, make_method(lower.method, keep=lower.keep))
            self.lowered += 1
            return self.runtime.run(query, state, clock)
