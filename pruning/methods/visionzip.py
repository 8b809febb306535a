"""VisionZip: keep what the vision tower itself attends to, and merge the rest to a few tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from pruning.base import Method, MethodError, everything, keeps_all
from pruning.context import part, saliency
from pruning.similarity import cosines, finite, merge_map
from pruning.topk import membership, top_k
from pruning.types import Selection

if TYPE_CHECKING:
    from pruning.types import PruneContext


@dataclass(frozen=True)
class VisionZip(Method):
    """Dominant tokens by attention inside the tower, contextual ones by merging.

    Dominant: most attended by the class token; by all patches where a tower has none (SigLIP).
    Contextual: tokens at an even stride among the others, to which all that leave are merged by
    the similarity of their keys, as plain means (after the release's code).

    Deviation: merges act where the cut is, on projected tokens; the release merges before the
    projector.

    Attributes:
        contextual: share of the budget that is contextual; the release keeps 10 of 64.
    """

    name: ClassVar[str] = "visionzip"
    paper: ClassVar[str] = (
        "Yang et al., VisionZip: Longer is Better but Not Necessary in Vision Language Models, "
        "CVPR 2025, arXiv 2412.04467"
    )
    needs: ClassVar[frozenset[str]] = frozenset({"features", "tower_attention", "tower_keys"})
    cost: ClassVar[str] = "n² e"
    exportable: ClassVar[bool] = True
    before_decoder: ClassVar[bool] = True

    contextual: float = 0.15625

    def __post_init__(self) -> None:
        """Check the fields."""
        super().__post_init__()
        if not 0 <= self.contextual < 1:
            raise MethodError(f"contextual is {self.contextual}: give a share below 1")

    def select(self, ctx: PruneContext) -> Selection:
        """Dominant and contextual tokens, and what each takes in."""
        if keeps_all(ctx):
            return everything(ctx)
        import torch

        # An embedding that is not finite would be merged into the others.
        n, score = finite(ctx.features).shape[1], saliency(ctx)
        targets = min(round(ctx.keep * self.contextual), ctx.keep - 1)
        if not targets:
            return Selection(top_k(score, ctx.keep))
        dominant = membership(top_k(score, ctx.keep - targets), n)
        others = top_k((~dominant).float(), n - ctx.keep + targets)
        at = torch.arange(targets, device=others.device) * others.shape[1] // targets
        context = membership(others[:, at], n)
        kept = top_k((dominant | context).float(), ctx.keep)
        likeness = cosines(part(ctx, "tower_keys"))
        even = torch.ones_like(score)
        merge = merge_map(kept, even, likeness, context.gather(1, kept))
        return Selection(kept, merge=merge)
