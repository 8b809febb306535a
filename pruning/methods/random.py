"""Tokens drawn by lot: what any scorer must beat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from pruning.base import Method

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from pruning.types import PruneContext


@dataclass(frozen=True)
class Random(Method):
    """A uniformly drawn set per group; the same seed draws the same set on every device."""

    name: ClassVar[str] = "random"
    paper: ClassVar[str] = "none: control"
    cost: ClassVar[str] = "n log n"

    def score(self, ctx: PruneContext) -> Float[Tensor, "g n"]:
        """One uniform number per token."""
        import torch

        # Drawn on the CPU: an accelerator's generator would give other sets for the same seed.
        generator = torch.Generator().manual_seed(ctx.seed)
        return torch.rand(ctx.features.shape[:2], generator=generator).to(ctx.features.device)
