"""An engine folder, checked, and its stages, each loaded when it is first needed."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from engines.errors import EngineError, EngineMemoryError
from engines.manifest import Manifest, check_files, check_weights_of, read_manifest
from engines.memory import free_bytes, mebibytes
from engines.weights import WEIGHTS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from engines.session import Session

    Opener = Callable[[Path], Session]


class Engine:
    """An engine that can be trusted: every file has the length and the hash that it should have.

    Attributes:
        folder: where it lies.
        manifest: what it says about itself.

    Args:
        folder: what `leanvla export` wrote.
        opener: makes a session from a graph's path; ONNX Runtime on the CPU by default.

    Raises:
        EngineError: on any mismatch, before a runtime has seen a file.
    """

    def __init__(self, folder: str | Path, opener: Opener | None = None) -> None:
        self.folder = Path(folder)
        self.manifest: Manifest = read_manifest(self.folder)
        check_files(self.folder, self.manifest)
        self._opener = opener or open_ort()
        self._sessions: dict[str, Session] = {}

    def check_policy(self, policy_sha256: str) -> None:
        """Refuse an engine that was made from other weights.

        Raises:
            EngineError: when the hashes differ.
        """
        check_weights_of(self.folder, self.manifest, policy_sha256)

    def session(self, graph: str) -> Session:
        """The session of a graph.

        Raises:
            EngineError: when the graph's tensors are not those of the manifest.
            EngineMemoryError: when it does not fit; sessions opened so far are closed.
            EngineUnavailableError: when the provider that was asked for cannot run.
        """
        if graph not in self._sessions:
            path = self.folder / self.manifest.graphs[graph].file
            try:
                session = self._opener(path)
            except (EngineMemoryError, MemoryError) as error:
                self.close()
                raise EngineMemoryError(self._too_large(graph, error)) from None
            self._check(graph, session)
            self._sessions[graph] = session
        return self._sessions[graph]

    def load(self, graphs: Iterable[str]) -> None:
        """Open some sessions now, so that no query pays for it; all of them or none."""
        for graph in graphs:
            self.session(graph)

    def release(self, graphs: Iterable[str]) -> None:
        """Close some sessions; they open again when needed."""
        for graph in graphs:
            session = self._sessions.pop(graph, None)
            if session is not None:
                session.close()

    def close(self) -> None:
        """Close all sessions."""
        self.release(list(self._sessions))

    def _check(self, graph: str, session: Session) -> None:
        wanted = self.manifest.specs(graph)
        for kind, want, have in zip(
            ("inputs", "outputs"), wanted, (session.inputs, session.outputs), strict=True
        ):
            if want != dict(have):
                session.close()
                raise EngineError(
                    f"{self.folder}: {kind} of graph {graph} are "
                    f"{_listed(have)}, the manifest says {_listed(want)}: "
                    f"rebuild with `{self.manifest.rebuild}`"
                )

    def _too_large(self, graph: str, error: Exception) -> str:
        weights = self.manifest.files.get(WEIGHTS)
        need = mebibytes(weights.bytes) if weights else "more"
        free = free_bytes()
        have = "an unknown amount" if free is None else mebibytes(free)
        return (
            f"{self.folder}: graph {graph} does not fit: the engine's weights take {need}, "
            f"{have} of host memory are free ({error}); nothing of it stays loaded: "
            "end other processes, or export with a smaller precision"
        )


def open_ort(
    *, provider: str = "cpu", threads: int = 1, allow_cpu: bool = False
) -> Callable[[Path], Session]:
    """How to open a graph with ONNX Runtime; see `OrtSession`."""
    from engines.ort import OrtSession

    return partial(OrtSession, provider=provider, threads=threads, allow_cpu=allow_cpu)


def _listed(specs: dict) -> str:
    return ", ".join(f"{name} {spec}" for name, spec in specs.items()) or "none"
