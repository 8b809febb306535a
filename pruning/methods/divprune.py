"""DivPrune: keep tokens that are far from one another, whatever is asked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from pruning.base import Method, everything, keeps_all
from pruning.maxmin import max_min
from pruning.similarity import finite
from pruning.types import Selection

if TYPE_CHECKING:
    from pruning.types import PruneContext


@dataclass(frozen=True)
class DivPrune(Method):
    """Max-min diversity of the decoder-input embeddings, `d(a, b) = 1 - cos(a, b)`.

    Greedy, before the decoder: start with the token whose nearest other one is farthest away, then
    add the token whose nearest chosen one is farthest away. No relevance to the prompt enters.
    """

    name: ClassVar[str] = "divprune"
    paper: ClassVar[str] = (
        "Alvar et al., DivPrune: Diversity-based Visual Token Pruning for Large Multimodal Models, "
        "CVPR 2025, arXiv 2503.02175"
    )
    needs: ClassVar[frozenset[str]] = frozenset({"features"})
    cost: ClassVar[str] = "n² d + n k"
    exportable: ClassVar[bool] = True
    before_decoder: ClassVar[bool] = True

    def select(self, ctx: PruneContext) -> Selection:
        """The most diverse `keep` of all tokens."""
        if keeps_all(ctx):
            return everything(ctx)
        import torch

        every = torch.ones(ctx.features.shape[:2], dtype=torch.bool, device=ctx.features.device)
        return Selection(max_min(finite(ctx.features), every, ctx.keep))
