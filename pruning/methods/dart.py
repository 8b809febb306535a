"""DART: keep a few pivots and what duplicates none of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from pruning.base import Method, MethodError, everything, keeps_all
from pruning.context import part, take
from pruning.similarity import cosines, finite
from pruning.topk import top_k
from pruning.types import Selection

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from pruning.types import PruneContext


@dataclass(frozen=True)
class DART(Method):
    """Duplication-aware reduction: each pivot brings in the tokens that resemble it least.

    Pivots are the visual and the text tokens of the largest L1 norm. They take turns: each adds an
    equal share of the budget, the tokens of the lowest cosine to it that are not chosen yet (after
    the paper's text).

    Deviation: norms and cosines are those of the hidden states at the cut; the paper ranks pivots
    by their keys.

    Attributes:
        pivots: visual pivots, which are kept.
        text_pivots: text pivots.
    """

    name: ClassVar[str] = "dart"
    paper: ClassVar[str] = (
        "Wen et al., Stop Looking for Important Tokens in Multimodal Language Models: Duplication "
        "Matters More, EMNLP 2025, arXiv 2502.11494"
    )
    needs: ClassVar[frozenset[str]] = frozenset({"features", "hidden", "text_hidden"})
    cost: ClassVar[str] = "8 n d"
    exportable: ClassVar[bool] = True

    pivots: int = 4
    text_pivots: int = 4

    def __post_init__(self) -> None:
        """Check the fields."""
        super().__post_init__()
        if self.pivots < 1 or self.text_pivots < 0:
            raise MethodError(
                f"pivots are {self.pivots} and {self.text_pivots}: give at least one visual pivot"
            )

    def select(self, ctx: PruneContext) -> Selection:
        """Pivots first, then each pivot's share."""
        if keeps_all(ctx):
            return everything(ctx)
        finite(ctx.features)
        hidden, text = part(ctx, "hidden"), part(ctx, "text_hidden")
        visual = top_k(_norm(hidden), min(self.pivots, ctx.keep))
        words = _norm(text)
        if ctx.text_mask is not None:
            words = words.masked_fill(~ctx.text_mask, -1.0)
        chosen = top_k(words, min(self.text_pivots, words.shape[1])) if self.text_pivots else None
        likeness = cosines(take(hidden, visual), hidden)
        if chosen is not None:
            import torch

            likeness = torch.cat([likeness, cosines(take(text, chosen), hidden)], 1)
        taken = (likeness[:, 0] * 0).scatter(1, visual, float("inf"))
        left, turns = ctx.keep - visual.shape[1], likeness.shape[1]
        for turn in range(turns):
            share = left // turns + (turn < left % turns)
            if share:
                added = top_k(-likeness[:, turn] - taken, share)
                taken = taken.scatter(1, added, float("inf"))
        return Selection(top_k(taken, ctx.keep))


def _norm(hidden: Float[Tensor, "g n d"]) -> Float[Tensor, "g n"]:
    return hidden.float().abs().sum(-1)
