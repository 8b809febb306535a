"""What is inside a network: inputs, outputs, layers, and whether pruning really is among them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

_NAMES = {
    "FLOAT": "float32",
    "HALF": "float16",
    "BF16": "bfloat16",
    "FP8": "float8_e4m3fn",
    "FP4": "float4_e2m1fn",
    "E8M0": "float8_e8m0fnu",
    "INT4": "int4",
    "INT8": "int8",
    "INT32": "int32",
    "INT64": "int64",
    "UINT8": "uint8",
    "BOOL": "bool",
}
_INDICES = ("int64", "int32")


@dataclass(frozen=True)
class Tensor:
    """An input or output of a network.

    Attributes:
        name: in the graph.
        shape: sizes; -1 where a profile or a value decides.
        dtype: name of a numpy (or ml_dtypes) type.
        decides_shapes: its value, not only its shape, decides sizes.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    decides_shapes: bool = False

    @property
    def static(self) -> bool:
        """Every size is fixed."""
        return -1 not in self.shape

    def __str__(self) -> str:
        """`float16 [1, 55, 64]`."""
        return f"{self.dtype} {list(self.shape)}"


@dataclass(frozen=True)
class Contents:
    """What a network holds.

    Attributes:
        inputs: in the order of the graph.
        outputs: in the order of the graph.
        layers: how many of each kind.
        types: how many layers give each data type.
        selections: gathers whose indices come from a top-k and whose result reaches an output.
        choices: outputs that are indices from a top-k, or constant ones: what a split engine's
            choice gives.
        indexed_by: inputs that index a gather on the way to an output: what its next layers read.
    """

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    layers: dict[str, int]
    types: dict[str, int]
    selections: tuple[str, ...]
    choices: tuple[str, ...] = ()
    indexed_by: tuple[str, ...] = ()

    @property
    def prunes(self) -> bool:
        """Tokens leave inside the graph."""
        return bool(self.selections)


def dtype_name(dtype: Any) -> str:
    """TensorRT's data type as numpy names it."""
    name = str(dtype).rpartition(".")[2]
    return _NAMES.get(name, name.lower())


def walk(network: Any) -> Contents:
    """Look at every layer of a parsed network."""
    layers = [network.get_layer(i) for i in range(network.num_layers)]
    kinds = [_kind(layer) for layer in layers]
    types = (dtype_name(t.dtype) for layer in layers for t in _outputs(layer))
    steps = [
        _Step(layer.name, kind, _names(_inputs(layer)), _names(_outputs(layer)))
        for layer, kind in zip(layers, kinds, strict=True)
    ]
    inputs = tuple(_tensor(network.get_input(i)) for i in range(network.num_inputs))
    outputs = tuple(_tensor(network.get_output(i)) for i in range(network.num_outputs))
    ranked = _behind(steps, (name for step in steps if step.kind == "TOPK" for name in step.gives))
    moving = _behind(steps, (tensor.name for tensor in inputs))
    return Contents(
        inputs=inputs,
        outputs=outputs,
        layers=dict(Counter(kinds).most_common()),
        types=dict(Counter(types).most_common()),
        selections=tuple(_gathers(steps, ranked, outputs)),
        choices=tuple(
            tensor.name
            for tensor in outputs
            if tensor.dtype in _INDICES and (tensor.name in ranked or tensor.name not in moving)
        ),
        indexed_by=tuple(
            tensor.name
            for tensor in inputs
            if tensor.dtype in _INDICES
            and any(_gathers(steps, _behind(steps, [tensor.name]), outputs))
        ),
    )


class _Step(NamedTuple):
    """One layer, as the names of what it reads and gives."""

    name: str
    kind: str
    reads: list[str]
    gives: list[str]


def _behind(steps: list[_Step], first: Iterable[str]) -> set[str]:
    """Some tensors, and all that is computed from them; layers come in their order."""
    found = set(first)
    for step in steps:
        if found.intersection(step.reads):
            found.update(step.gives)
    return found


def _gathers(steps: list[_Step], indices: set[str], outputs: Iterable[Tensor]) -> Iterable[str]:
    """Gathers that are indexed by one of these tensors, and whose result reaches an output."""
    wanted = {tensor.name for tensor in outputs}
    for step in reversed(steps):
        if wanted.intersection(step.gives):
            wanted.update(step.reads)
    return [
        step.name
        for step in steps
        if step.kind == "GATHER"
        and len(step.reads) > 1
        and step.reads[1] in indices
        and wanted.intersection(step.gives)
    ]


def _names(tensors: Iterable[Any]) -> list[str]:
    return [tensor.name for tensor in tensors]


def _kind(layer: Any) -> str:
    return str(layer.type).rpartition(".")[2]


def _inputs(layer: Any) -> list[Any]:
    found = (layer.get_input(i) for i in range(layer.num_inputs))
    return [tensor for tensor in found if tensor is not None]


def _outputs(layer: Any) -> list[Any]:
    found = (layer.get_output(i) for i in range(layer.num_outputs))
    return [tensor for tensor in found if tensor is not None]


def _tensor(tensor: Any) -> Tensor:
    shape = tuple(int(size) for size in tensor.shape)
    return Tensor(tensor.name, shape, dtype_name(tensor.dtype), bool(tensor.is_shape_tensor))
