"""A stage module to an ONNX graph that holds no weights, only where they lie.

The module's parameters are fake: shapes without memory. Tracing, optimising and writing a graph of
a seven-billion-parameter network therefore takes no more memory than its nodes.
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from engines.errors import EngineError
from engines.weights import WEIGHTS, Stored

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import onnx_ir as ir

    from engines.session import Specs
    from engines.stage import StageModule
    from engines.weights import WeightPlan

WRAPPED = "model."
IR_VERSION = 10
"""Of the file format: the newest that ONNX Runtime 1.20 reads at the opsets in use."""

Weights = dict["ir.Value", Stored]
Translations = Mapping[Any, "Callable[..., Any]"]
Products = Callable[[str, "ir.Graph", Weights], "Specs"]
"""Rewrites the products of a graph, given its name and weights; gives the outputs that it adds."""


@contextlib.contextmanager
def fake_tensors() -> Iterator[None]:
    """Within this context torch tensors have shapes and types, and no memory."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        yield


def make_graph(
    name: str,
    stage: StageModule,
    opset: int,
    plan: WeightPlan,
    *,
    products: Products | None = None,
    translations: Translations | None = None,
) -> ir.Model:
    """The graph of a stage, made under `fake_tensors`; its weights get a place in `plan`.

    Args:
        name: of the graph, for messages.
        stage: parameters and inputs fake.
        opset: version of the ONNX operators.
        plan: places of weights, shared by all graphs of an engine.
        products: rewrites products with weights; tells what it adds to the outputs.
        translations: of torch operators that the exporter does not know.

    Raises:
        EngineError: when the stage has an input that its graph does not read.
    """
    model = _trace(stage, opset, translations or {})
    weights = _set_aside(model.graph)
    _optimise(model)
    for weight in weights:
        model.graph.inputs.remove(weight)
    _fold_transposes(model.graph, weights)
    _check_inputs(name, stage, model.graph)
    _check_outputs(name, stage, model.graph)
    if products is not None:
        products(name, model.graph, weights)
    _place(model.graph, weights, plan)
    _strip(model, name)
    return model


def save_graph(model: ir.Model, path: Path) -> None:
    """Write the graph; weights stay where they are."""
    import onnx_ir as ir

    path.write_bytes(ir.serde.serialize_model(model).SerializeToString(deterministic=True))


def _trace(stage: StageModule, opset: int, translations: Translations) -> ir.Model:
    import torch

    stage.eval()
    with warnings.catch_warnings(), _quiet(), torch.no_grad():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            stage,
            stage.examples(),
            dynamo=True,
            opset_version=opset,
            input_names=list(stage.inputs),
            output_names=list(stage.outputs()),
            optimize=False,
            verbose=False,
            custom_translation_table=dict(translations),
        )
    if program is None:
        raise EngineError("torch.onnx.export gave nothing: a newer torch is needed")
    return program.model


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter reports operators of packages that nobody asked for."""
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def _set_aside(graph: ir.Graph) -> Weights:
    """Make weights inputs: an optimiser would read them, and there is nothing to read."""
    weights = {}
    for value in list(graph.initializers.values()):
        if not _is_fake(value):
            continue
        graph.initializers.pop(value.name)
        value.const_value = None
        graph.inputs.append(value)
        weights[value] = Stored(value.name.removeprefix(WRAPPED), "plain")
    return weights


def _is_fake(value: ir.Value) -> bool:
    return type(getattr(value.const_value, "raw", None)).__name__ == "FakeTensor"


def _optimise(model: ir.Model) -> None:
    import onnxscript.optimizer

    onnxscript.optimizer.optimize_ir(model)


def _fold_transposes(graph: ir.Graph, weights: Weights) -> None:
    """Store a linear layer's weight as its product reads it, not once per graph at load."""
    import onnx_ir as ir

    for node in list(graph):
        source: Any = node.inputs[0] if node.op_type == "Transpose" else None
        stored = None if source is None else weights.get(source)
        if stored is None or list(node.attributes["perm"].as_ints()) != [1, 0]:
            continue
        shape = ir.Shape(reversed([int(size) for size in source.shape]))
        name = f"{source.name}.transposed"
        turned = next((value for value in weights if value.name == name), None)
        if turned is None:
            turned = ir.Value(name=name, shape=shape, type=source.type)
            weights[turned] = Stored(stored.weight, "transposed")
        _replace(graph, node, turned)


def _replace(graph: ir.Graph, node: ir.Node, value: ir.Value) -> None:
    """Take a node out; `value` stands for its output."""
    node.outputs[0].replace_all_uses_with(value)
    graph.remove(node, safe=True)


def _check_inputs(name: str, stage: StageModule, graph: ir.Graph) -> None:
    """Drop optional inputs that nothing reads; refuse any other difference from the declaration."""
    for value in list(graph.inputs):
        if value.name in stage.optional and not value.uses():
            graph.inputs.remove(value)
            stage.inputs = {n: spec for n, spec in stage.inputs.items() if n != value.name}
    unread = [
        value.name for value in graph.inputs if value.name in stage.inputs and not _read(value)
    ]
    if unread or [value.name for value in graph.inputs] != list(stage.inputs):
        raise EngineError(
            f"stage {name}: graph inputs are {[v.name for v in graph.inputs]}, "
            f"{', '.join(unread) or 'none'} unread, declared are {list(stage.inputs)}: "
            "the stage does not compute what it says"
        )


def _check_outputs(name: str, stage: StageModule, graph: ir.Graph) -> None:
    """The exporter renames outputs that are called like an input."""
    have, want = [value.name for value in graph.outputs], list(stage.outputs())
    if have != want:
        raise EngineError(
            f"stage {name}: graph outputs are {have}, declared are {want}: rename them"
        )


def _read(value: ir.Value) -> bool:
    return bool(value.uses()) or value.is_graph_output()


def _place(graph: ir.Graph, weights: Weights, plan: WeightPlan) -> None:
    """Turn weights into initialisers that point into the weight file."""
    import onnx_ir as ir

    for value, stored in weights.items():
        if not value.uses():
            continue
        shape = tuple(int(size) for size in value.shape)
        dtype = value.dtype
        place = plan.place(stored, shape, _numpy_name(dtype))
        value.const_value = ir.ExternalTensor(
            WEIGHTS, place.offset, place.nbytes, dtype, shape=value.shape, name=value.name
        )
        graph.initializers[value.name] = value


def _numpy_name(dtype: Any) -> str:
    return {"FLOAT": "float32", "DOUBLE": "float64"}.get(dtype.name, dtype.name.lower())


def _strip(model: ir.Model, name: str) -> None:
    """Take out what says where and on whose machine a graph was traced."""
    model.graph.name, model.ir_version = name, IR_VERSION
    model.doc_string, model.producer_name, model.producer_version = None, "leanvla", None
    model.metadata_props.clear()
    model.graph.metadata_props.clear()
    for value in (*model.graph.inputs, *model.graph.outputs):
        value.metadata_props.clear()
    for node in model.graph:
        node.metadata_props.clear()
        node.doc_string = None
        for value in node.outputs:
            value.metadata_props.clear()
