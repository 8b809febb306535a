"""CDPruner: keep a diverse set, and weigh diversity by what the prompt asks for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from pruning.base import Method, everything, keeps_all
from pruning.context import part
from pruning.dpp import dpp_map
from pruning.similarity import cosines, spread
from pruning.types import Selection

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from pruning.types import PruneContext


@dataclass(frozen=True)
class CDPruner(Method):
    """Greedy MAP of a determinantal process conditioned on relevance, `diag(r) L diag(r)`.

    `L` holds the cosines of the vision tower's tokens, `r` each token's mean cosine with the prompt
    in the decoder's input space, moved to 0..1 within the view (after the paper's text).

    Deviation: where a model's tower has a text encoder of its own, the paper takes `r` from it.
    """

    name: ClassVar[str] = "cdpruner"
    paper: ClassVar[str] = (
        "Zhang et al., Beyond Attention or Similarity: Maximizing Conditional Diversity for Token "
        "Pruning in MLLMs, NeurIPS 2025, arXiv 2506.10967"
    )
    needs: ClassVar[frozenset[str]] = frozenset({"features", "tower_features", "text_features"})
    cost: ClassVar[str] = "n² d + n k²"
    exportable: ClassVar[bool] = True
    before_decoder: ClassVar[bool] = True

    def select(self, ctx: PruneContext) -> Selection:
        """The set of the largest conditional determinant."""
        if keeps_all(ctx):
            return everything(ctx)
        worth = spread(relevance(ctx))
        kernel = cosines(part(ctx, "tower_features"))
        return Selection(dpp_map(worth.unsqueeze(1) * kernel * worth.unsqueeze(2), ctx.keep))


def relevance(ctx: PruneContext) -> Float[Tensor, "g n"]:
    """Mean cosine of every visual token with the prompt's tokens.

    Raises:
        MethodError: when the model provided no text features.
    """
    likeness = cosines(ctx.features, part(ctx, "text_features"))
    if ctx.text_mask is None:
        return likeness.mean(-1)
    words = ctx.text_mask.unsqueeze(1).to(likeness.dtype)
    return (likeness * words).sum(-1) / words.sum(-1).clamp_min(1)
