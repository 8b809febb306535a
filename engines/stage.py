"""A stage as a torch module: named inputs of static shape, named outputs.

torch is needed here, so this module is imported at export and by the reference session only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from engines.session import Specs, TensorSpec

if TYPE_CHECKING:
    from collections.abc import Collection

    from torch import Tensor


class StageModule(nn.Module):
    """A piece of a network that becomes one graph.

    A subclass declares `inputs` and defines `compute`. Its parameters are named as the weights are
    stored; the prefix `model.` of a wrapped network does not count.

    Args:
        inputs: shape and type of every input, in order.
        optional: inputs that leave the graph when it turns out not to read them; any other input
            that is not read is an error.
    """

    def __init__(self, inputs: Specs, optional: Collection[str] = ()) -> None:
        super().__init__()
        self.inputs, self.optional = inputs, frozenset(optional)

    def compute(self, **inputs: Tensor) -> dict[str, Tensor]:
        """Named outputs from named inputs."""
        raise NotImplementedError(f"{type(self).__name__} must define compute()")

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """The outputs in their order, from the inputs in theirs."""
        return tuple(self.compute(**dict(zip(self.inputs, inputs, strict=True))).values())

    def examples(self) -> tuple[Tensor, ...]:
        """One tensor for each input; distinct objects, since an exporter merges equal ones."""
        return tuple(
            torch.zeros(spec.shape, dtype=torch_type(spec.dtype)) for spec in self.inputs.values()
        )

    def outputs(self) -> Specs:
        """Shape and type of every output; runs the stage, best under fake tensors."""
        with torch.no_grad():
            named = self.compute(**dict(zip(self.inputs, self.examples(), strict=True)))
        return {name: spec_of(tensor) for name, tensor in named.items()}


def torch_type(name: str) -> torch.dtype:
    """The torch type of a numpy type's name."""
    kind: Any = getattr(torch, name)
    return kind


def spec_of(tensor: Tensor) -> TensorSpec:
    """Shape and type of a tensor."""
    return TensorSpec(tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))
