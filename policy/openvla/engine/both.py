"""Sessions that run a stage of an engine and the same stage on torch, on the same inputs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from engines.parity import StageLedger
from policy.openvla.engine.ties import EngineChoice

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from engines.artefact import Engine
    from engines.session import Session
    from policy.openvla.engine.reference import Reference

    Arrays = dict[str, np.ndarray]

CHOICES = ("kept", "alive")
"""Outputs that say which tokens a graph kept: one choice, or all those of a fused graph."""


class Both:
    """An engine beside its reference, for a runtime that takes the engine's answers.

    Attributes:
        ledger: how far stages are apart.
        choices: what the graphs of this query kept.

    Args:
        engine: what is compared.
        reference: the same stages on torch.
    """

    def __init__(self, engine: Engine, reference: Reference) -> None:
        self.engine, self.reference, self.ledger = engine, reference, StageLedger()
        self.choices: list[EngineChoice] = []
        self._held: list[tuple[str, Arrays, Arrays]] = []

    def session(self, graph: str) -> Session:
        """Both sessions of a graph as one."""
        return _BothSession(graph, self)

    def load(self, graphs: Iterable[str]) -> None:
        """Open the engine's sessions."""
        self.engine.load(graphs)

    def begin(self) -> None:
        """Start a query."""
        self.choices, self._held = [], []

    def settle(self, *, tied: bool) -> None:
        """End a query; stages that chose otherwise than torch by right have nothing to compare."""
        for entry in () if tied else self._held:
            self.ledger.add(*entry)

    def add(self, graph: str, have: Arrays, want: Arrays) -> None:
        """Note one run of a stage."""
        chosen = next((name for name in CHOICES if name in want), None)
        if chosen is not None:
            same = np.array_equal(have[chosen], want[chosen])
            self.choices.append(EngineChoice(np.array(have[chosen]), same))
            if not same:
                mine = {
                    name: np.array(have[name]) for name in want
                }  # a session's own until it runs
                self._held.append((graph, mine, want))
                return
        self.ledger.add(graph, have, want)


class _BothSession:
    provider = "both"

    def __init__(self, graph: str, both: Both) -> None:
        self._graph, self._both = graph, both
        self._engine, self._reference = both.engine.session(graph), both.reference.session(graph)
        self.inputs, self.outputs = self._engine.inputs, self._engine.outputs

    def run(self, feeds: Mapping[str, np.ndarray]) -> Arrays:
        wanted = self._reference.inputs
        # What the graph turned out not to read may be anything.
        same = {n: feeds.get(n, np.ones(s.shape)).astype(s.dtype) for n, s in wanted.items()}
        want = self._reference.run(same)
        have = self._engine.run(feeds)
        self._both.add(self._graph, have, want)
        return have

    def close(self) -> None:
        """Both belong to somebody else."""
