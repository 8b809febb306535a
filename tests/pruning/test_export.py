"""What says that it is exportable is exported, and chooses the same on ONNX Runtime."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from pruning.base import Method
from pruning.onnx import translations
from pruning.registry import METHODS, make_method
from pruning.types import PruneContext
from tests.pruning.matrix import context

KEEP = 6
EXPORTED = [
    *(name for name, kind in METHODS.items() if kind.exportable and name != "dense"),
    "sparsevlm:recycled=0.5:clusters=0.3",
    "smooth+fastv",
    "reuse+adp",
    "divprune:sketch=8",
]
GIVEN = {"keep", "seed", "stage", "views", "project", "output"}


def flatten(ctx: PruneContext) -> dict[str, torch.Tensor]:
    """Every tensor of a context by a name of its own."""
    found: dict[str, torch.Tensor] = {}
    for field in fields(ctx):
        value = getattr(ctx, field.name)
        if field.name in GIVEN or value is None:
            continue
        if isinstance(value, torch.Tensor):
            found[field.name] = value
        elif field.name == "heads":
            found |= {"heads.q": value.q, "heads.k": value.k}
        else:
            found |= {f"{field.name}.{key}": tensor for key, tensor in value.items()}
    return {name: tensor.contiguous().clone() for name, tensor in found.items()}


def restored(ctx: PruneContext, tensors: dict[str, torch.Tensor]) -> PruneContext:
    """The context with its tensors replaced."""
    plain = {name: tensor for name, tensor in tensors.items() if "." not in name}
    maps: dict[str, dict] = {"attention": {}, "memory": {}, "heads": {}}
    for name, tensor in tensors.items():
        if "." in name:
            field, _, key = name.partition(".")
            maps[field][key] = tensor
    heads = ctx.heads._replace(**maps["heads"]) if maps["heads"] else None
    return replace(ctx, attention=maps["attention"], memory=maps["memory"], heads=heads, **plain)


class Selecting(torch.nn.Module):
    """A selection as a graph."""

    def __init__(self, method: Method, ctx: PruneContext, names: list[str]) -> None:
        super().__init__()
        self.method, self.ctx, self.names = method, ctx, names

    def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        ctx = restored(self.ctx, dict(zip(self.names, tensors, strict=True)))
        selection = self.method.select(ctx)
        outputs = [selection.kept, *selection.memory.values()]
        return (*outputs, selection.merge) if selection.merge is not None else tuple(outputs)


def prepared(name: str) -> tuple[Method, list[PruneContext]]:
    """A method and contexts of consecutive queries, with memory where it has one."""
    method = make_method(name, keep=0.25)
    contexts = [replace(context(KEEP, 2, seed=seed), views=2) for seed in (0, 5)]
    memory = method.select(contexts[0]).memory
    return method, [replace(ctx, memory=memory) for ctx in contexts]


@pytest.mark.parametrize("name", EXPORTED)
def test_onnx_runtime_chooses_as_eager_does(name: str, tmp_path: Path) -> None:
    method, contexts = prepared(name)
    tensors = flatten(contexts[0])
    module = Selecting(method, contexts[0], list(tensors)).eval()
    path = tmp_path / "selection.onnx"
    torch.onnx.export(
        module,
        tuple(tensors.values()),
        path,
        input_names=list(tensors),
        dynamo=True,
        verbose=False,
        custom_translation_table=translations(),
    )
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    wanted = {node.name for node in session.get_inputs()}
    for ctx in contexts:
        values = flatten(ctx)
        eager = module(*values.values())
        got = session.run(None, {n: v.numpy() for n, v in values.items() if n in wanted})
        assert np.array_equal(got[0], eager[0].numpy())
        for one, other in zip(got[1:], eager[1:], strict=True):
            np.testing.assert_allclose(one, other.numpy(), atol=1e-5)


@pytest.mark.parametrize("name", ["vla_pruner", "smooth+fastv", "mmtok:sketch=8"])
def test_compiled_selection_is_the_plain_one(name: str) -> None:
    """The whole graph in one piece; the generated code itself is not what is tested."""
    method, contexts = prepared(name)
    tensors = flatten(contexts[0])
    module = Selecting(method, contexts[0], list(tensors))
    fast = torch.compile(module, fullgraph=True, backend="aot_eager")
    for ctx in contexts:
        inputs = tuple(flatten(ctx).values())
        assert fast(*inputs)[0].equal(module(*inputs)[0])
