"""PruMerge: keep the outliers of the tower's attention, and merge others into them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from pruning.base import Method, MethodError, everything, keeps_all
from pruning.context import part, saliency
from pruning.ladder import nearest_rung
from pruning.similarity import cosines, finite
from pruning.topk import top_k
from pruning.types import Selection

if TYPE_CHECKING:
    from jaxtyping import Float, Int64
    from torch import Tensor

    from pruning.types import PruneContext


@dataclass(frozen=True)
class PruMerge(Method):
    """As many tokens as have outlying attention, above the third quartile plus 1.5 of its range.

    Attention is that of the class token in the tower, or of all patches where it has none. Each
    kept token becomes the attention-weighted mean of itself and those of its `neighbours` most
    similar tokens (by key) that leave (after the release's code). The profile `plus` fills the
    budget with tokens at an even stride.

    Deviations: the count is the ladder rung nearest to the outliers' (of the view that has most),
    at most `keep`; no averaged token is appended, since it has no position; merges act where the
    cut is.

    Attributes:
        iqr: interquartile ranges above the third quartile.
        neighbours: tokens that a kept one looks at for merging.
        plus: fill up to `keep` with an even stride.
    """

    name: ClassVar[str] = "prumerge"
    paper: ClassVar[str] = (
        "Shang et al., LLaVA-PruMerge: Adaptive Token Reduction for Efficient Large Multimodal "
        "Models, ICCV 2025, arXiv 2403.15388"
    )
    needs: ClassVar[frozenset[str]] = frozenset({"features", "tower_attention", "tower_keys"})
    cost: ClassVar[str] = "n² e"
    adaptive: ClassVar[bool] = True
    before_decoder: ClassVar[bool] = True
    profiles: ClassVar[Mapping[str, Mapping[str, object]]] = {"plus": {"plus": True}}

    iqr: float = 1.5
    neighbours: int = 32
    plus: bool = False

    def __post_init__(self) -> None:
        """Check the fields."""
        super().__post_init__()
        if not (self.iqr >= 0 and self.neighbours >= 0):
            raise MethodError("iqr and neighbours must be at least 0")

    def select(self, ctx: PruneContext) -> Selection:
        """The outliers' rung, and the merge."""
        if keeps_all(ctx):
            return everything(ctx)
        finite(ctx.features)  # one of them would be merged into the others
        score = saliency(ctx)
        count = int(outliers(score, self.iqr).amax())
        if self.plus:
            kept = _filled(score, min(count, ctx.keep), ctx.keep)
        else:
            kept = top_k(score, nearest_rung(count, score.shape[1], ctx.keep))
        return Selection(kept, merge=self._merge(kept, score, cosines(part(ctx, "tower_keys"))))

    def _merge(
        self, kept: Int64[Tensor, "g k"], score: Tensor, likeness: Tensor
    ) -> Float[Tensor, "g k n"]:
        import torch

        n, k = score.shape[1], kept.shape[1]
        near = likeness.gather(1, kept.unsqueeze(-1).expand(-1, k, n))
        near = near.scatter(2, kept.unsqueeze(1).expand(-1, k, k), float("-inf"))
        chosen = near.topk(min(self.neighbours, n - k), dim=-1).indices
        taken = torch.zeros_like(near).scatter(2, chosen, 1.0).scatter(2, kept.unsqueeze(-1), 1.0)
        weights = taken * score.clamp_min(1e-12).unsqueeze(1)
        return weights / weights.sum(-1, keepdim=True)


def outliers(score: Float[Tensor, "g n"], iqr: float) -> Int64[Tensor, " g"]:
    """How many scores of each group lie above the third quartile plus `iqr` ranges."""
    import torch

    low, high = torch.quantile(score, torch.tensor([0.25, 0.75], device=score.device), dim=-1)
    return (score > (high + iqr * (high - low)).unsqueeze(-1)).sum(-1)


def _filled(score: Tensor, best: int, keep: int) -> Int64[Tensor, "g k"]:
    """The best tokens, an even stride, and the next best where both coincide."""
    import torch

    n, rank = score.shape[1], torch.zeros_like(score)
    at = torch.arange(keep - best, device=score.device)
    rank[:, (2 * at + 1) * n // (2 * max(keep - best, 1))] = 1.0
    if best:
        rank.scatter_(1, top_k(score, best), 2.0)
    return top_k(rank + score / score.amax(-1, keepdim=True).clamp_min(1e-12) * 0.5, keep)
