"""DivPrune: keep tokens that are far from one another, whatever is asked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from pruning.base import Method, everything, keeps_all
from pruning.maxmin import max_min
from pruning.sketch import check_width, sketch
from pruning.types import Selection

if TYPE_CHECKING:
    from pruning.types import PruneContext


@dataclass(frozen=True)
class DivPrune(Method):
    """Max-min diversity of the decoder-input embeddings, `d(a, b) = 1 - cos(a, b)`.

    Eq. 3 with the distance of eq. 4, by algorithm 1, before the decoder: start with the token whose
    nearest other one is farthest away, then add the token whose nearest chosen one is farthest
    away. No relevance to the prompt enters. Deviation: none by default.

    Attributes:
        sketch: fold the embeddings to so many dimensions first: faster, and another set; 0
            compares them as they are.
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

    sketch: int = 0

    def __post_init__(self) -> None:
        """Check the fields."""
        super().__post_init__()
        check_width(self.sketch)

    def select(self, ctx: PruneContext) -> Selection:
        """The most diverse `keep` of all tokens."""
        if keeps_all(ctx):
            return everything(ctx)
        import torch

        folded = sketch(ctx.features, self.sketch)
        every = torch.ones(ctx.features.shape[:2], dtype=torch.bool, device=ctx.features.device)
        return Selection(max_min(folded, every, ctx.keep))
