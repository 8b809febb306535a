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
from engines.precision import PRECISIONS
from engines.quantise import dynamic_products, static_products
from engines.weights import WEIGHTS, WeightPlan, write_table, write_weights

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import onnx_ir as ir
    from torch import Tensor

    from engines.graph import Products, Translations, Weights
    from engines.session import Specs
    from engines.stage import StageModule

OPSET = 23
_PRODUCERS = ("leanvla", "torch", "onnx", "onnxscript", "onnxruntime")


@dataclass(frozen=True)
class Blueprint:
    """What an engine is to be made of.

    Attributes:
        family: policy family that will read it.
        policy: name or folder of the checkpoint.
        policy_sha256: hash of its weights.
        precision: a name of `PRECISIONS`.
        prompt_tokens: longest prompt.
        rebuild: the command that makes this engine.
        stages: by graph name, a function that makes the stage; called under fake tensors.
        rungs: methods and budgets.
        assets: further files, by their name in the folder.
        opset: version of the ONNX operators.
        translations: of torch operators that the exporter does not know.
        products: rewrites products with weights, instead of what `precision` says.
        ranges: of the activations, by the weight that multiplies them; for a calibrated precision.
        calibration: what they were measured on, in words.
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
    products: Products | None = None
    ranges: Mapping[str, float] = field(default_factory=dict)
    calibration: str = ""


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
        calibration=blueprint.calibration,
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
    added: Specs = {}

    def rewrite(name: str, graph: ir.Graph, weights: Weights) -> Specs:
        added.update(_products(blueprint)(name, graph, weights))
        return added

    words = blueprint.translations
    model = make_graph(name, stage, blueprint.opset, plan, products=rewrite, translations=words)
    save_graph(model, folder / f"{name}.onnx")
    return graph_entry(f"{name}.onnx", stage.inputs, outputs | added)


def _products(blueprint: Blueprint) -> Products:
    """What the precision does to products with weights."""
    if blueprint.products is not None:
        return blueprint.products
    kind, ranges = PRECISIONS[blueprint.precision].products, blueprint.ranges
    if kind == "plain":
        return lambda name, graph, weights: {}
    if kind == "dynamic":
        return lambda name, graph, weights: dynamic_products(graph, weights)
    return lambda name, graph, weights: static_products(graph, weights, ranges, kind)


def producers() -> dict[str, str]:
    """Versions of the packages that make engines."""
    found = {}
    for package in _PRODUCERS:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
