"""One budget for all views of a sample, split by what the prompt asks for."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from pruning.base import MethodError, everything, keeps_all
from pruning.context import of_groups, part
from pruning.similarity import cosines
from pruning.types import Selection
from pruning.wrappers.base import Wrapper, chain

if TYPE_CHECKING:
    from jaxtyping import Float, Int64
    from torch import Tensor

    from pruning.base import Stage
    from pruning.types import PruneContext


@dataclass(frozen=True)
class Quota(Wrapper):
    """Views (cameras or video frames) get budgets by relevance; the inner method spends each.

    `keep` tokens times the number of views are split in proportion to `relevance ** power`, as in
    QuoTA, but never below `least` of an even share nor above a view. The total is exact.
    Relevance of a view: for each prompt token the best cosine with a visual token, averaged (in the
    decoder's input space). QuoTA asks a second vision-language model about every frame instead;
    fixed `weights` take the place of both.

    Attributes:
        power: how sharply relevance splits the budget.
        least: share of an even budget that every view gets.
        weights: fixed shares of the views, in their order, e.g. `0.4-0.6`; none for relevance.
    """

    name: ClassVar[str] = "quota"
    paper: ClassVar[str] = (
        "after QuoTA: Query-oriented Token Assignment via CoT Query Decouple for Long Video "
        "Comprehension, arXiv 2503.08689"
    )
    own_needs: ClassVar[frozenset[str]] = frozenset({"features", "text_features"})
    cost: ClassVar[str] = "n t d"

    power: float = 2.0
    least: float = 0.25
    weights: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        """Check the fields."""
        super().__post_init__()
        object.__setattr__(self, "weights", tuple(self.weights))
        if self.power < 0 or not 0 <= self.least <= 1:
            raise MethodError("power must be at least 0, least a share of 0 to 1")
        if self.weights and not min(self.weights) > 0:
            raise MethodError(f"weights are {self.weights}: every view needs one above 0")
        if self.wrapped.adaptive:
            raise MethodError(f"quota spends all of its budget, {self.wrapped.name} may not")
        if any(method.name == "reuse" for method in chain(self.wrapped)):
            raise MethodError(
                "reuse remembers sets of one size, quota changes sizes: leave one out"
            )

    def stages(self, num_layers: int, causal: bool) -> tuple[Stage, ...]:
        """The inner method's cut.

        Raises:
            MethodError: for several: behind an uneven split views have no common size.
        """
        stages = super().stages(num_layers, causal)
        if len(stages) > 1:
            raise MethodError(f"quota needs one cut, {self.wrapped.name} has {len(stages)}")
        return stages

    def select(self, ctx: PruneContext) -> Selection:
        """Every view's share, laid end to end."""
        if keeps_all(ctx):
            return everything(ctx)
        if ctx.views == 1 and not self.weights:
            return self.wrapped.select(ctx)
        budgets = self._budgets(ctx)
        parts = []
        for row, keep in enumerate(budgets):
            # A draw of its own for each view, and none that another context's views have.
            seed = (ctx.seed * len(budgets) + row) % 2**63
            view = replace(of_groups(ctx, slice(row, row + 1), keep), seed=seed)
            parts.append(self.wrapped.select(view))
        return _joined(parts, ctx.views, ctx.features.shape[1])

    def _budgets(self, ctx: PruneContext) -> list[int]:
        """Tokens of every view."""
        groups, n = ctx.features.shape[:2]
        if not self.weights:
            worth = relevance(ctx).clamp_min(0).double().cpu().numpy() ** self.power
        elif len(self.weights) == ctx.views:
            worth = np.tile(self.weights, groups // ctx.views)
        else:
            raise MethodError(f"{len(self.weights)} weights for {ctx.views} views: give one each")
        least = max(1, int(self.least * ctx.keep))
        budgets: list[int] = []
        for start in range(0, groups, ctx.views):
            share = worth[start : start + ctx.views]
            budgets += split(ctx.keep * ctx.views, share, least, n)
        return budgets


def relevance(ctx: PruneContext) -> Float[Tensor, " g"]:
    """Mean over the prompt's tokens of their best cosine with a visual token."""
    best = cosines(part(ctx, "text_features"), ctx.features).amax(-1)
    if ctx.text_mask is None:
        return best.mean(-1)
    said = ctx.text_mask.to(best.dtype)
    return (best * said).sum(-1) / said.sum(-1).clamp_min(1)


def split(total: int, worth: np.ndarray, least: int, most: int) -> list[int]:
    """Whole numbers in proportion to `worth`, each within `least..most`, that sum to `total`.

    Remainders go to the largest fraction first, ties to the first view.
    """
    views = len(worth)
    share = worth / worth.sum() if worth.sum() > 0 else np.full(views, 1 / views)
    budget = np.full(views, least)
    while (left := total - budget.sum()) > 0:
        room = budget < most
        weight = np.where(room, np.maximum(share, 1e-9), 0)
        want = left * weight / weight.sum()
        step = np.minimum(np.floor(want).astype(int), most - budget)
        if not step.any():
            order = sorted(np.flatnonzero(room), key=lambda view: -want[view])
            step[order[:left]] = 1
        budget = budget + step
    return [int(tokens) for tokens in budget]


def _joined(parts: list[Selection], views: int, n: int) -> Selection:
    """One row per sample, indices running over its views."""
    import torch

    moved = [one.kept + at % views * n for at, one in enumerate(parts)]
    kept = torch.cat([torch.cat(moved[at : at + views], 1) for at in range(0, len(moved), views)])
    merges = [one.merge for one in parts if one.merge is not None]
    merge = None
    if len(merges) == len(parts):
        blocks = [torch.block_diag(*[m[0] for m in merges[at : at + views]])
                  for at in range(0, len(parts), views)]  # fmt: skip
        merge = torch.stack(blocks)
    memory: dict[str, Int64[Tensor, ...]] = {
        key: torch.cat([one.memory[key] for one in parts]) for key in parts[0].memory
    }
    return Selection(kept, merge, memory, views)
