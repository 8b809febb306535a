"""Tokens at an even stride: what a lower camera resolution would roughly give."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from pruning.base import Method, everything, keeps_all
from pruning.types import Selection

if TYPE_CHECKING:
    from pruning.types import PruneContext


@dataclass(frozen=True)
class Uniform(Method):
    """The middle token of each of `keep` equal runs, in raster order: `floor((i + 1/2) n / k)`."""

    name: ClassVar[str] = "uniform"
    paper: ClassVar[str] = "none: control"
    cost: ClassVar[str] = "k"
    exportable: ClassVar[bool] = True

    def select(self, ctx: PruneContext) -> Selection:
        """The same stride in every group; at full budget, every token."""
        import torch

        if keeps_all(ctx):
            return everything(ctx)
        groups, n = ctx.features.shape[:2]
        index = torch.arange(ctx.keep, device=ctx.features.device)
        kept = ((2 * index + 1) * n).div(2 * ctx.keep, rounding_mode="floor")
        return Selection(kept.expand(groups, ctx.keep))
