"""Writing an engine folder: graphs, one file of weights, manifest; all of it or nothing."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from engines.errors import EngineError
from engines.folder import staged
from engines.graph import fake_tensors, make_graph, save_graph
from engines.manifest import (
    SCHEMA,
    GraphEntry,
    Manifest,
    Rung,
    file_entry,
    graph_entry,
    is_engine,
    write_manifest,
)
from engines.weights import WEIGHTS, WeightPlan, write_table, write_weights

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import Tensor

    from engines.graph import Translations
    from engines.stage import StageModule

PRECISIONS = ("fp32", "fp16", "bf16", "int8")
TYPES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16", "int8": "float32"}
OPSET = 23
_PRODUCERS = ("leanvla", "torch", "onnx", "onnxscript", "onnxruntime")


@dataclass(frozen=True)
class Blueprint:
    """What an engine is to be made of.

    Attributes:
        family: policy family that will read it.
        policy: name or folder of the checkpoint.
        policy_sha256: hash of its weights.
        precision: one of `PRECISIONS`.
        prompt_tokens: longest prompt.
        rebuild: the command that makes this engine.
        stages: by graph name, a function that makes the stage; called under fake tensors.
        rungs: methods and budgets.
        assets: further files, by their name in the folder.
        opset: version of the ONNX operators.
        translations: of torch operators that the exporter does not know.
    """

    family: str
    policy: str
    policy_sha256: str
    precision: str
    prompt_tokens: int
    rebuild: str
    stages: Mapping[str, Callable[[], StageModule]]
    rungs: Sequence[Rung]
    assets: Mapping[str, Path]
    opset: int = OPSET
    translations: Translations = field(default_factory=dict)


def write_engine(
    folder: Path,
    blueprint: Blueprint,
    weight: Callable[[str], Tensor],
    progress: Callable[[str], None] = lambda step: None,
) -> Manifest:
    """Make an engine; the folder appears, or is replaced, when all of it is written.

    Args:
        folder: where to; an engine that is there is replaced, anything else is refused.
        blueprint: what to make.
        weight: gives a weight by name; asked for one at a time.
        progress: told what is being done.

    Raises:
        EngineError: when the folder holds something else, or a stage cannot become a graph.
    """
    if folder.exists() and not is_engine(folder) and (folder.is_file() or any(folder.iterdir())):
        raise EngineError(f"{folder} holds something that is no engine: choose another folder")
    with staged(folder) as staging:
        return _fill(staging, blueprint, weight, progress)


def _fill(
    folder: Path,
    blueprint: Blueprint,
    weight: Callable[[str], Tensor],
    progress: Callable[[str], None],
) -> Manifest:
    plan = WeightPlan()
    graphs = {}
    with fake_tensors():
        for name, make in blueprint.stages.items():
            progress(f"graph {name}")
            graphs[name] = _write_graph(folder, name, make, blueprint, plan)
    progress(f"{len(plan.places)} weights")
    write_weights(folder / WEIGHTS, plan.entries(), weight)
    write_table(folder, plan.entries())
    for name, source in blueprint.assets.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, folder / name)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    manifest = Manifest(
        schema=SCHEMA,
        family=blueprint.family,
        policy=blueprint.policy,
        policy_sha256=blueprint.policy_sha256,
        precision=blueprint.precision,
        opset=blueprint.opset,
        prompt_tokens=blueprint.prompt_tokens,
        rebuild=blueprint.rebuild,
        producers=producers(),
        files={path.relative_to(folder).as_posix(): file_entry(path) for path in files},
        graphs=graphs,
        rungs=list(blueprint.rungs),
    )
    write_manifest(folder, manifest)
    return manifest


def _write_graph(
    folder: Path,
    name: str,
    make: Callable[[], StageModule],
    blueprint: Blueprint,
    plan: WeightPlan,
) -> GraphEntry:
    stage = make().eval()
    outputs = stage.outputs()
    int8 = blueprint.precision == "int8"
    words = blueprint.translations
    model = make_graph(name, stage, blueprint.opset, plan, int8=int8, translations=words)
    save_graph(model, folder / f"{name}.onnx")
    return graph_entry(f"{name}.onnx", stage.inputs, outputs)


def producers() -> dict[str, str]:
    """Versions of the packages that make engines."""
    found = {}
    for package in _PRODUCERS:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
