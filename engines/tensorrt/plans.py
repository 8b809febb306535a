"""Plans of an engine's graphs: what `leanvla build` wrote, checked, and opened in their place.

    engine = Engine(folder, Plans(folder / "plans"))

A plan belongs to one graph, one file of weights, one library version. All three are compared before
TensorRT sees a byte; a mismatch names the command that builds again.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from engines.errors import EngineError
from engines.manifest import sha256
from engines.tensorrt.library import Library, find_library
from engines.tensorrt.session import open_plan
from engines.weights import WEIGHTS

if TYPE_CHECKING:
    from collections.abc import Callable

    from engines.tensorrt.cuda import Cuda
    from engines.tensorrt.session import TensorRTSession

SCHEMA = "leanvla.build/1"
REPORT = "plans.json"


class PlanEntry(msgspec.Struct, frozen=True):
    """What must hold for a plan to be opened; `plans.json` says more.

    Attributes:
        library: `tensorrt` or `tensorrt_rtx`.
        version: of the library that built it.
        plan_sha256: hash of the plan.
        onnx_sha256: hash of the graph that it was built from.
        weights_sha256: hash of the weights beside that graph; empty for a graph without.
        profiles: names of the profiles; none for static shapes.
        version_compatible: a later version may load it.
    """

    library: str
    version: str
    plan_sha256: str
    onnx_sha256: str
    weights_sha256: str
    profiles: list[str] = []
    version_compatible: bool = False


class Plans:
    """Opens the plan of a graph where ONNX Runtime would open the graph itself.

    Args:
        folder: what `leanvla build` wrote.
        cuda_graph: record copies and kernels of every session once and replay them.
        resident: tells by name which tensors stay on the device between sessions.
        cuda: CUDA calls; the device's own when left out.
        found: the library, already imported.

    Raises:
        EngineError: when the folder holds no plans, or its report is damaged.
    """

    def __init__(
        self,
        folder: Path,
        *,
        cuda_graph: bool = True,
        resident: Callable[[str], bool] = lambda name: False,
        cuda: Cuda | None = None,
        found: Library | None = None,
    ) -> None:
        self.folder = folder
        self.entries = read_plans(folder)
        self._cuda_graph, self._resident = cuda_graph, resident
        self._cuda, self._found = cuda, found
        self._weights: dict[Path, str] = {}

    def __call__(self, graph: Path) -> TensorRTSession:
        """A session on the plan of a graph.

        Raises:
            EngineError: when there is no plan of this graph, with these weights, for this library.
            EngineUnavailableError: when library, driver or cuda-python is missing.
            EngineMemoryError: when the device has no room.
        """
        name = f"{graph.stem}.plan"
        entry = self.entries.get(name)
        if entry is None:
            raise EngineError(f"{self.folder} has no {name}: {self._again(graph)}")
        found = self._found or find_library(entry.library)
        self._check(graph, entry, found)
        engine = open_plan(
            self.folder / name,
            sha256=entry.plan_sha256,
            library=entry.library,
            cuda=self._cuda,
            found=found,
        )
        return engine.session(cuda_graph=self._cuda_graph, resident=self._resident)

    def _check(self, graph: Path, entry: PlanEntry, found: Library) -> None:
        plan = self.folder / f"{graph.stem}.plan"
        if entry.onnx_sha256 != sha256(graph):
            raise EngineError(f"{plan} was built from another graph: {self._again(graph)}")
        if entry.weights_sha256 != self._weights_of(graph):
            raise EngineError(f"{plan} was built with other weights: {self._again(graph)}")
        if entry.version != found.version and not entry.version_compatible:
            raise EngineError(
                f"{plan} was built by {entry.library} {entry.version}, {found} is here: "
                f"{self._again(graph)}"
            )
        if entry.profiles:
            raise EngineError(
                f"{plan} takes its budget at run time: engines have one static plan per rung; "
                "build without --rungs"
            )

    def _weights_of(self, graph: Path) -> str:
        weights = graph.parent / WEIGHTS
        if weights not in self._weights:
            self._weights[weights] = sha256(weights) if weights.is_file() else ""
        return self._weights[weights]

    def _again(self, graph: Path) -> str:
        return f"build again with `leanvla build {graph.parent} --out {self.folder}`"


def read_plans(folder: Path) -> dict[str, PlanEntry]:
    """The plans of a folder by file name.

    Raises:
        EngineError: when the report is missing, damaged, or of another schema.
    """
    path = Path(folder) / REPORT
    if not path.is_file():
        raise EngineError(f"{folder} has no {REPORT}: give a folder that `leanvla build` wrote")
    try:
        report = msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
        if report.get("schema") != SCHEMA:
            raise EngineError(f"{path} is {report.get('schema')!r} and not {SCHEMA}: build again")
        return msgspec.convert(report["plans"], dict[str, PlanEntry])
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError, KeyError) as error:
        raise EngineError(f"{path} is damaged ({error}): build the plans again") from None
