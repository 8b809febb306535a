"""VLA-Cache: compute again what moved or matters, reuse keys and values of the rest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from pruning.base import Method, MethodError, attention_of, everything
from pruning.context import part
from pruning.ladder import rung_at_least
from pruning.similarity import finite
from pruning.topk import membership, top_k
from pruning.types import Selection

if TYPE_CHECKING:
    from jaxtyping import Bool
    from torch import Tensor

    from pruning.types import PruneContext


@dataclass(frozen=True)
class VLACache(Method):
    """A patch is static when its pixels are those of the query before; static ones are reused.

    Reused tokens stay in the sequence with the keys and values of the query that computed them
    last; the others run through the layers above the cut. Computed are all patches whose cosine
    with the frame before is below `static`, and the `relevant` share that the prompt looks at most:
    without this exclusion the paper loses 13 points of success. `keep` is the least share computed;
    the lowest ladder rung that holds all of these is taken. The first query computes everything.
    Patches and thresholds after the release's code.

    Deviations: relevance is the prompt's attention of this query at the last full layer, where the
    release reads layer 15 of the query before; one cut, where it grows the reused share over four
    layers by attention entropy; a threshold alone decides, without a cap on static patches.

    Attributes:
        static: least cosine of a patch's pixels between two queries for it to be static.
        relevant: share of each view that is computed because the prompt looks at it; the release
            has 120 of 256 for OpenVLA.
    """

    name: ClassVar[str] = "vla_cache"
    paper: ClassVar[str] = (
        "Xu et al., VLA-Cache: Efficient Vision-Language-Action Manipulation via Adaptive Token "
        "Caching, NeurIPS 2025, arXiv 2502.02175"
    )
    needs: ClassVar[frozenset[str]] = frozenset({"text", "pixels"})
    cost: ClassVar[str] = "n p"
    adaptive: ClassVar[bool] = True

    static: float = 0.996
    relevant: float = 0.46875

    def __post_init__(self) -> None:
        """Check the fields."""
        super().__post_init__()
        if not (0 <= self.static <= 1 and 0 <= self.relevant <= 1):
            raise MethodError("static is a cosine and relevant a share: give 0 to 1")

    def select(self, ctx: PruneContext) -> Selection:
        """What is computed; the rest is reused."""
        memory = {"vla_cache.pixels": finite(part(ctx, "pixels"), "pixels")}
        before = ctx.memory.get("vla_cache.pixels")
        if before is None:
            return Selection(everything(ctx).kept, memory=memory, reuse=True)
        must = ~self._static(ctx, before)
        n, attention = ctx.features.shape[1], attention_of(ctx, "text").float()
        relevant = round(self.relevant * n)
        if relevant:
            must = must | membership(top_k(attention, relevant), n)
        count = rung_at_least(max(int(must.sum(-1).amax()), ctx.keep), n, n)
        chosen = top_k(must * (1 + attention.amax()) + attention, count)
        return Selection(chosen, memory=memory, reuse=True)

    def _static(self, ctx: PruneContext, before: Tensor) -> Bool[Tensor, "g n"]:
        from torch.nn.functional import cosine_similarity

        return cosine_similarity(part(ctx, "pixels").float(), before.float(), dim=-1) >= self.static
