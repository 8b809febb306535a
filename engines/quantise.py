"""Dynamic int8 for CPUs: weights stored as int8, activations quantised as they come.

The nodes are those that ONNX Runtime fuses into one integer product; every linear layer that acts
on a sequence is replaced, and a quantised activation is shared by the layers that read it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from engines.weights import Stored

if TYPE_CHECKING:
    import onnx_ir as ir

    Weights = dict[ir.Value, Stored]

LEAST = 64
"""A product with a shorter side is not worth the quantising."""


def quantise_products(graph: ir.Graph, weights: Weights) -> None:
    """Replace `MatMul` with a weight by an integer product."""
    quantised: dict[ir.Value, tuple[ir.Value, ...]] = {}
    for node in list(graph):
        if node.op_type != "MatMul" or node.inputs[1] not in weights:
            continue
        weight = node.inputs[1]
        if weights[weight].form != "transposed" or min(int(s) for s in weight.shape) < LEAST:
            continue
        x = node.inputs[0]
        if x not in quantised:
            quantised[x] = _quantised(graph, node, x)
        _replace(graph, node, quantised[x], _int8(weight, weights))


def _quantised(graph: ir.Graph, before: ir.Node, x: ir.Value) -> tuple[ir.Value, ...]:
    """8-bit values, scale and zero point of an activation."""
    import onnx_ir as ir

    node = ir.node("DynamicQuantizeLinear", [x], num_outputs=3)
    for output, kind in zip(node.outputs, ("int8", "scale", "zero"), strict=True):
        output.name = f"{x.name}.{kind}"
    graph.insert_before(before, node)
    return tuple(node.outputs)


def _int8(weight: ir.Value, weights: Weights) -> tuple[ir.Value, ir.Value]:
    """The weight's two stored forms as values: int8 `[in, out]`, and a scale per output."""
    import onnx_ir as ir

    source, (rows, columns) = weights[weight].weight, weight.shape
    whole = ir.Value(
        name=f"{weight.name}.int8",
        shape=ir.Shape([rows, columns]),
        type=ir.TensorType(ir.DataType.INT8),
    )
    scale = ir.Value(
        name=f"{weight.name}.scale",
        shape=ir.Shape([columns]),
        type=ir.TensorType(ir.DataType.FLOAT),
    )
    weights[whole], weights[scale] = Stored(source, "int8"), Stored(source, "int8_scale")
    return whole, scale


def _replace(
    graph: ir.Graph,
    node: ir.Node,
    activation: tuple[ir.Value, ...],
    weight: tuple[ir.Value, ir.Value],
) -> None:
    """`(x8 @ w8) * (x scale * w scale)` in place of `x @ w`."""
    import onnx_ir as ir

    name = node.outputs[0].name
    x8, x_scale, x_zero = activation
    product = ir.node("MatMulInteger", [x8, weight[0], x_zero])
    number = ir.node("Cast", product.outputs, attributes={"to": int(ir.DataType.FLOAT)})
    scale = ir.node("Mul", [x_scale, weight[1]])
    result = ir.node("Mul", [number.outputs[0], scale.outputs[0]])
    for made, kind in ((product, "int32"), (number, "float"), (scale, "scale"), (result, "out")):
        made.outputs[0].name = f"{name}.{kind}"
        graph.insert_before(node, made)
    result.outputs[0].shape, result.outputs[0].type = node.outputs[0].shape, node.outputs[0].type
    node.outputs[0].replace_all_uses_with(result.outputs[0])
    graph.remove(node, safe=True)
