"""Is another choice than the model's a tie, or a fault?

Two runtimes round differently, so an engine may choose otherwise where the model's own choice hangs
on the last digits of what it reads. Whether it does is asked of the model: its method chooses again
and again on inputs that are disturbed as much as rounding disturbs them. Tokens whose lot changes
are unsure, and an engine may exchange those and no others. That holds for every method, whether it
ranks tokens, walks along distances, or clusters.
"""

from __future__ import annotations

from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from pruning.runtime import Pruner
from pruning.topk import membership
from pruning.types import Heads

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaxtyping import Bool, Int64
    from torch import Tensor

    from pruning.base import Method
    from pruning.types import PruneContext, Selection

TRIALS = 16
ROUNDING = 1e-5
"""How far float32 may move what a method reads, by its size: five to twenty times what lies between
ONNX Runtime and torch at the end of a stage of `mini` (cosines of 1 - 2e-13 to 1 - 2e-12)."""


class ModelChoice(NamedTuple):
    """What the eager model's method saw at a cut, and which tokens it kept."""

    context: PruneContext
    kept: Int64[np.ndarray, "g k"]


class EngineChoice(NamedTuple):
    """Which tokens a graph kept, and whether torch keeps the same on the graph's own inputs."""

    kept: Int64[np.ndarray, "g k"]
    as_torch: bool


class WatchedPruner(Pruner):
    """A pruner that notes what it was asked and what it answered.

    Args:
        pruner: the one to be; it is not used any more.
    """

    def __init__(self, pruner: Pruner) -> None:
        vars(self).update(vars(pruner))
        self.choices: list[ModelChoice] = []

    def select(self, ctx: PruneContext) -> Selection:
        """Choose as ever."""
        selection = super().select(ctx)
        self.choices.append(ModelChoice(ctx, selection.kept.numpy()))
        return selection


def are_tied(method: Method, engine: Sequence[EngineChoice], model: Sequence[ModelChoice]) -> bool:
    """Whether rounding explains that an engine kept other tokens than its model in a query.

    The first choice that differs must be a tie. Those after it are made among other tokens than the
    model's, which say nothing of them: there a graph must do as torch does on the same inputs.

    Args:
        method: the model's.
        engine: choices of the query's graphs, in order.
        model: choices of the eager model, in order.
    """
    if len(engine) != len(model):  # one graph for several choices: nobody knows which one differs
        return False
    for number, (have, want) in enumerate(zip(engine, model, strict=True)):
        if not np.array_equal(have.kept, want.kept):
            later = engine[number + 1 :]
            return is_tie(method, want, have.kept) and all(choice.as_torch for choice in later)
    return False


def is_tie(method: Method, model: ModelChoice, kept: Int64[np.ndarray, "g k"]) -> bool:
    """Whether `kept` differs from the model's choice in unsure tokens only."""
    context, n = model.context, model.context.features.shape[1]
    if kept.shape != model.kept.shape:
        return False
    wanted = membership(torch.from_numpy(model.kept), n)
    moved = membership(torch.from_numpy(kept), n) ^ wanted
    return not bool((moved & ~_unsure(method, context, wanted)).any())


@torch.inference_mode()
def _unsure(method: Method, context: PruneContext, wanted: Tensor) -> Bool[Tensor, "g n"]:
    """Tokens that are kept in one trial and not in another."""
    generator = torch.Generator().manual_seed(0)
    unsure = torch.zeros_like(wanted)
    for _ in range(TRIALS):
        again = method.select(_disturbed(context, generator)).kept
        unsure |= membership(again, wanted.shape[1]) ^ wanted
    return unsure


def _disturbed(context: PruneContext, generator: torch.Generator) -> PruneContext:
    """The context with every number that it holds rounded otherwise."""
    changed: dict[str, Any] = {}
    for field in fields(context):
        value = getattr(context, field.name)
        if isinstance(value, torch.Tensor):
            changed[field.name] = _nudge(value, generator)
        elif isinstance(value, Heads):
            changed[field.name] = Heads(*(_nudge(part, generator) for part in value))
        elif isinstance(value, dict):
            changed[field.name] = {key: _nudge(v, generator) for key, v in value.items()}
    return replace(context, **changed)


def _nudge(values: Tensor, generator: torch.Generator) -> Tensor:
    """Numbers moved by rounding: probabilities by their own size, all others by their row's."""
    if not values.is_floating_point():
        return values
    noise = 2 * torch.rand(values.shape, generator=generator, dtype=values.dtype) - 1
    size = values if (values >= 0).all() else values.square().mean(-1, keepdim=True).sqrt()
    return values + ROUNDING * size * noise
