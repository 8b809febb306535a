"""Ranges of activations, measured on recorded observations with the dense model.

The dense rung reads every weight, decode steps included; pruned rungs run the same layers on fewer
tokens and use the same ranges. A value beyond the largest that was seen is clipped.
"""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from engines.artefact import Engine
from engines.errors import EngineError
from engines.quantise import RANGES, Observer
from policy.openvla.config import load_config
from policy.openvla.engine.export import PROMPT_TOKENS, Ranges, export_policy
from policy.openvla.engine.policy import EnginePolicy
from pruning.registry import make_method

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    import numpy as np

    from engines.session import Session
    from policy.types import Observation


class Calibration:
    """The dense engine with its ranges put out, and the largest that were seen.

    Attributes:
        policy: the dense engine as a policy; whoever runs it measures.
        by_weight: largest absolute value of the activation that a weight multiplies.
        queries: how many were answered.
    """

    def __init__(self, engine: Engine, weights: Mapping[str, list[str]]) -> None:
        self.by_weight: dict[str, float] = {}
        self.queries = 0
        self._engine, self._weights = engine, weights
        key = next(iter(load_config(engine.folder / "policy").norm_stats), None)
        self.policy = EnginePolicy(engine, make_method("dense"), key)
        self.policy.runtime.source = self

    def session(self, graph: str) -> Session:
        """A session that keeps its ranges here."""
        return _Measured(graph, self._engine.session(graph), self)

    def load(self, graphs: Iterable[str]) -> None:
        """Open some sessions now."""
        self._engine.load(graphs)

    def see(self, observations: Iterable[Observation]) -> None:
        """Answer observations of one episode."""
        state = self.policy.initial_state()
        for observation in observations:
            _, state, _ = self.policy.infer(observation, state)
            self.queries += 1

    def take(self, graph: str, ranges: np.ndarray) -> None:
        """Remember what a graph put out.

        Raises:
            EngineError: when an activation is not finite.
        """
        for weight, value in zip(self._weights[graph], ranges.tolist(), strict=True):
            if not value < float("inf"):
                raise EngineError(f"the activation that {weight} multiplies is {value}: not finite")
            self.by_weight[weight] = max(self.by_weight.get(weight, 0.0), value)

    def ranges(self, source: str) -> Ranges:
        """What was measured.

        Raises:
            EngineError: when nothing was.
        """
        if not self.queries:
            raise EngineError(f"{source}: no observation to calibrate on")
        return Ranges(dict(self.by_weight), f"{self.queries} observations of {source}")


@contextlib.contextmanager
def calibrating(
    checkpoint: Path,
    prompt_tokens: int = PROMPT_TOKENS,
    progress: Callable[[str], None] = lambda step: None,
) -> Iterator[Calibration]:
    """The dense engine of a checkpoint, made for measuring and gone afterwards."""
    observer = Observer()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "dense"
        export_policy(
            checkpoint,
            folder,
            methods=[],
            keeps=[],
            prompt_tokens=prompt_tokens,
            products=observer,
            progress=lambda step: progress(f"to calibrate: {step}"),
        )
        engine = Engine(folder)
        try:
            yield Calibration(engine, observer.weights)
        finally:
            engine.close()


class _Measured:
    """A session whose output `ranges` goes to the calibration."""

    def __init__(self, graph: str, session: Session, calibration: Calibration) -> None:
        self._graph, self._session, self._calibration = graph, session, calibration
        self.inputs, self.provider = session.inputs, session.provider
        self.outputs = {name: s for name, s in session.outputs.items() if name != RANGES}

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        found = self._session.run(feeds)
        if RANGES in found:
            self._calibration.take(self._graph, found[RANGES])
        return {name: found[name] for name in self.outputs}

    def close(self) -> None:
        """The engine closes its sessions."""
