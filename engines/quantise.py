"""Products with weights in eight bits, as graph nodes.

`dynamic_products`  int8 for CPUs: activations are quantised as they come; ONNX Runtime's alone.
`observe_products`  puts out the largest absolute value of every activation that a product reads.
`static_products`   QuantizeLinear and DequantizeLinear with calibrated scales, int8 or fp8: ONNX
                    Runtime and TensorRT both take them (explicit quantisation).

Every linear layer that acts on a sequence is meant; a quantised activation is shared by the layers
that read it. Ranges go by the weight that reads the activation, so that graphs of several budgets,
and of another base type, agree on them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from engines.errors import EngineError
from engines.session import TensorSpec
from engines.weights import Stored

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import onnx_ir as ir

    from engines.session import Specs
    from engines.weights import Form

    Weights = dict[ir.Value, Stored]

LEAST = 64
"""A product with a shorter side is not worth the quantising."""
RANGES = "ranges"


def candidates(graph: ir.Graph, weights: Weights) -> Iterator[tuple[ir.Node, str]]:
    """Products worth the quantising, each with the name of its weight."""
    for node in list(graph):
        weight = node.inputs[1] if node.op_type == "MatMul" else None
        if weight is None or weight not in weights:
            continue
        stored = weights[weight]
        if stored.form == "transposed" and min(int(size) for size in weight.shape) >= LEAST:
            yield node, stored.weight


def dynamic_products(graph: ir.Graph, weights: Weights) -> Specs:
    """Replace `MatMul` with a weight by an integer product."""
    quantised: dict[ir.Value, tuple[ir.Value, ...]] = {}
    for node, _ in candidates(graph, weights):
        x = node.inputs[0]
        if x not in quantised:
            quantised[x] = _dynamic(graph, node, x)
        weight = _stored(weights, node.inputs[1], "int8"), _scales(weights, node.inputs[1], "FLOAT")
        _replace(graph, node, quantised[x], weight)
    return {}


class Observer:
    """Adds the output `ranges` to graphs; call it as `Blueprint.products`.

    Attributes:
        weights: by graph, the weight that reads each activation, in the order of `ranges`.
    """

    def __init__(self) -> None:
        self.weights: dict[str, list[str]] = {}

    def __call__(self, name: str, graph: ir.Graph, weights: Weights) -> Specs:
        """Put out the largest absolute value of what each product reads."""
        import onnx_ir as ir

        found: list[ir.Value] = []
        names = self.weights.setdefault(name, [])
        for node, weight in candidates(graph, weights):
            size = ir.node("Constant", [], attributes={"value_ints": [1]})
            large = ir.node("Abs", [node.inputs[0]])
            most = ir.node("ReduceMax", large.outputs, attributes={"keepdims": 1})
            flat = ir.node("Reshape", [most.outputs[0], size.outputs[0]])
            _add(graph, node, f"{weight}.range", size, large, most, flat)
            found.append(flat.outputs[0])
            names.append(weight)
        if not found:
            return {}
        last = list(graph)[-1]
        joined = ir.node("Concat", found, attributes={"axis": 0})
        joined.outputs[0].name = RANGES
        joined.outputs[0].shape = ir.Shape([len(found)])
        joined.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
        graph.insert_after(last, joined)
        graph.outputs.append(joined.outputs[0])
        return {RANGES: TensorSpec((len(found),), "float32")}


class _Kind(NamedTuple):
    """A type of eight bits: its name in ONNX, its largest value, forms of weight and scale."""

    onnx: str
    most: float
    weight: Form
    scale: Form
    axis: int | None


KINDS = {
    "int8": _Kind("INT8", 127.0, "int8", "int8_scale", 1),
    "fp8": _Kind("FLOAT8E4M3FN", 448.0, "fp8", "fp8_scale", None),
}


def static_products(
    graph: ir.Graph, weights: Weights, ranges: Mapping[str, float], kind: str
) -> Specs:
    """Quantise and dequantise what every product reads, with a scale that was measured.

    Args:
        graph: of one stage.
        weights: its weights.
        ranges: by weight, the largest absolute value of the activation that it multiplies.
        kind: `int8` or `fp8`.

    Raises:
        EngineError: when a range was never measured.
    """
    products = list(candidates(graph, weights))
    missing = [weight for _, weight in products if weight not in ranges]
    if missing:
        raise EngineError(
            f"the activation that {missing[0]} multiplies was never measured: calibrate with the "
            "checkpoint that is exported"
        )
    most: dict[ir.Value, float] = {}
    for node, weight in products:
        most[node.inputs[0]] = max(most.get(node.inputs[0], 0.0), ranges[weight])
    done: dict[ir.Value, ir.Value] = {}
    for node, _ in products:
        x = node.inputs[0]
        if x not in done:
            done[x] = _round_trip(graph, node, most[x], KINDS[kind])
        node.replace_input_with(0, done[x])
        node.replace_input_with(1, _dequantised(graph, node, weights, KINDS[kind]))
    return {}


def _round_trip(graph: ir.Graph, product: ir.Node, most: float, kind: _Kind) -> ir.Value:
    """What a product reads, to eight bits and back; runtimes fuse it with the product."""
    import onnx_ir as ir

    x: Any = product.inputs[0]
    weight: Any = product.inputs[1]
    scale = _constant(graph, f"{x.name}.q_scale", max(most, 1e-12) / kind.most, weight.dtype.name)
    zero = _constant(graph, f"{x.name}.q_zero", 0, kind.onnx)
    there = ir.node("QuantizeLinear", [x, scale, zero])
    back = ir.node("DequantizeLinear", [there.outputs[0], scale, zero])
    _add(graph, product, f"{x.name}.static", there, back)
    _like(back.outputs[0], x)
    return back.outputs[0]


def _dequantised(graph: ir.Graph, node: ir.Node, weights: Weights, kind: _Kind) -> ir.Value:
    """The weight as stored in eight bits, and the node that scales it."""
    import onnx_ir as ir

    weight = node.inputs[1]
    whole = _stored(weights, weight, kind.weight, kind.onnx)
    scale = _scales(weights, weight, weight.dtype.name, kind)
    axis = {} if kind.axis is None else {"axis": kind.axis}
    back = ir.node("DequantizeLinear", [whole, scale], attributes=axis)
    _add(graph, node, f"{node.outputs[0].name}.weight", back)
    _like(back.outputs[0], weight)
    return back.outputs[0]


def _constant(graph: ir.Graph, name: str, value: float, kind: str) -> ir.Value:
    """A scalar in the graph itself."""
    import numpy as np
    import onnx_ir as ir

    dtype = ir.DataType[kind]
    tensor = ir.Tensor(np.array(value, dtype.numpy()), dtype=dtype, name=name)
    found = ir.Value(name=name, shape=ir.Shape([]), type=ir.TensorType(dtype), const_value=tensor)
    graph.register_initializer(found)
    return found


def _stored(weights: Weights, weight: ir.Value, form: Form, kind: str = "INT8") -> ir.Value:
    """A weight `[in, out]` in another form, one value for all products of a graph that read it."""
    import onnx_ir as ir

    return _value(weights, weight, form, [int(s) for s in weight.shape], ir.DataType[kind])


def _scales(weights: Weights, weight: ir.Value, kind: str, of: _Kind | None = None) -> ir.Value:
    """The scales of a weight: one per output, or one for all."""
    import onnx_ir as ir

    of = of or KINDS["int8"]
    shape = [] if of.axis is None else [int(weight.shape[1])]
    return _value(weights, weight, of.scale, shape, ir.DataType[kind])


def _value(
    weights: Weights, weight: ir.Value, form: Form, shape: list[int], kind: ir.DataType
) -> ir.Value:
    import onnx_ir as ir

    stored, name = Stored(weights[weight].weight, form), f"{weight.name}.{form}"
    for value, known in weights.items():
        if known == stored and value.name == name:
            return value
    made = ir.Value(name=name, shape=ir.Shape(shape), type=ir.TensorType(kind))
    weights[made] = stored
    return made


def _dynamic(graph: ir.Graph, before: ir.Node, x: ir.Value) -> tuple[ir.Value, ...]:
    """8-bit values, scale and zero point of an activation."""
    import onnx_ir as ir

    node = ir.node("DynamicQuantizeLinear", [x], num_outputs=3)
    for output, kind in zip(node.outputs, ("int8", "scale", "zero"), strict=True):
        output.name = f"{x.name}.{kind}"
    graph.insert_before(before, node)
    return tuple(node.outputs)


def _replace(
    graph: ir.Graph,
    node: ir.Node,
    activation: tuple[ir.Value, ...],
    weight: tuple[ir.Value, ir.Value],
) -> None:
    """`(x8 @ w8) * (x scale * w scale)` in place of `x @ w`."""
    import onnx_ir as ir

    x8, x_scale, x_zero = activation
    product = ir.node("MatMulInteger", [x8, weight[0], x_zero])
    number = ir.node("Cast", product.outputs, attributes={"to": int(ir.DataType.FLOAT)})
    scale = ir.node("Mul", [x_scale, weight[1]])
    result = ir.node("Mul", [number.outputs[0], scale.outputs[0]])
    _add(graph, node, f"{node.outputs[0].name}.int8", product, number, scale, result)
    _like(result.outputs[0], node.outputs[0])
    node.outputs[0].replace_all_uses_with(result.outputs[0])
    graph.remove(node, safe=True)


def _add(graph: ir.Graph, before: ir.Node, stem: str, *nodes: ir.Node) -> None:
    """Put nodes before another, their outputs named after a stem."""
    for number, node in enumerate(nodes):
        node.outputs[0].name = f"{stem}.{number}"
        graph.insert_before(before, node)


def _like(value: ir.Value, other: ir.Value) -> None:
    """The same shape and type."""
    value.shape, value.type = other.shape, other.type
