"""MMTok: keep tokens that together cover both the prompt and the picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from pruning.base import Method, MethodError, everything, keeps_all
from pruning.context import part
from pruning.coverage import max_coverage
from pruning.similarity import cosines
from pruning.sketch import check_width, sketch
from pruning.types import Selection

if TYPE_CHECKING:
    from pruning.types import PruneContext


@dataclass(frozen=True)
class MMTok(Method):
    """Greedy maximum coverage of text tokens and of vision tokens by the vision tokens that stay.

    Algorithm 2, the greedy cover of eq. 2. Rows to cover: `softmax(T V' / text_temperature) / m`
    for the prompt (§3.1.1, decoder-input space) and `alpha softmax(U U' / vision_temperature) / n`
    for the picture (§3.1.2, before the projector), softmax as in §3.1.3, all vectors at length 1.

    Deviation: the prompt is taken as it stands; the release drops its stop words first.

    Attributes:
        text_temperature: of the softmax of prompt rows.
        vision_temperature: of the softmax of picture rows.
        alpha: weight of the picture.
        sketch: fold the tower's tokens to so many dimensions first: faster, and another set; 0
            compares them as they are. The prompt is never folded: its softmax is too sharp.
    """

    name: ClassVar[str] = "mmtok"
    paper: ClassVar[str] = (
        "Dong et al., MMTok: Multimodal Coverage Maximization for Efficient Inference of VLMs, "
        "ICLR 2026, arXiv 2508.18264"
    )
    needs: ClassVar[frozenset[str]] = frozenset({"features", "tower_features", "text_features"})
    cost: ClassVar[str] = "n² d + (t + n) n k"
    exportable: ClassVar[bool] = True
    before_decoder: ClassVar[bool] = True

    text_temperature: float = 0.02
    vision_temperature: float = 0.2
    alpha: float = 0.5
    sketch: int = 0

    def __post_init__(self) -> None:
        """Check the fields."""
        super().__post_init__()
        check_width(self.sketch)
        if not (self.text_temperature > 0 and self.vision_temperature > 0 and self.alpha >= 0):
            raise MethodError("temperatures must be above 0 and alpha at least 0")

    def select(self, ctx: PruneContext) -> Selection:
        """The greedy cover."""
        if keeps_all(ctx):
            return everything(ctx)
        import torch

        words, n = cosines(part(ctx, "text_features"), ctx.features), ctx.features.shape[1]
        asked = (words / self.text_temperature).softmax(-1)
        if ctx.text_mask is None:
            asked = asked / words.shape[1]
        else:
            said = ctx.text_mask.unsqueeze(-1).to(asked.dtype)
            asked = asked * said / said.sum(1, keepdim=True).clamp_min(1)
        tower = sketch(part(ctx, "tower_features"), self.sketch)
        # Rows as columns: cosines are symmetric, and greedy coverage reads column after column.
        seen = (cosines(tower) / self.vision_temperature).softmax(-2) * (self.alpha / n)
        return Selection(max_coverage(torch.cat([asked.mT, seen], -1).mT, ctx.keep))
