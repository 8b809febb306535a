"""ToDRE: keep a diverse set before the decoder, and no visual token once text stops looking."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from pruning.base import Method, MethodError, Stage, attention_of, everything, keeps_all
from pruning.context import part, saliency
from pruning.maxsum import max_sum
from pruning.topk import no_nan
from pruning.types import Selection

if TYPE_CHECKING:
    from pruning.types import PruneContext

DIVERSITY = frozenset({"features", "tower_attention"})
MASS = frozenset({"text", "text_mass"})


@dataclass(frozen=True)
class ToDRE(Method):
    """Token diversity first, task relevance later.

    Stage 1 (§4.1), before the decoder: from the token that the tower attends to most (eq. 3),
    greedily add the token of the least summed cosine to those chosen (eq. 4 to 6).
    Stage 2 (§4.2), at 7/8 of the layers: where attention mass from text to vision and from vision
    to text (eq. 8) are both below `tau`, all visual tokens leave. With causal attention vision
    never sees the text behind it, so the second mass is 0. Numbers are those of version 2.

    Deviation: where a tower has no class token, the one that all patches attend to most is the
    first; the paper draws it. Each view has a first token of its own (§4.1: one of all frames).

    Robot actions are read from rows that may still look at vision there: measure before use, or
    set `tau=0`, which leaves stage 2 out.

    Attributes:
        tau: attention mass below which vision is dropped.
    """

    name: ClassVar[str] = "todre"
    paper: ClassVar[str] = (
        "ToDRE: Effective Visual Token Pruning via Token Diversity and Task Relevance, "
        "arXiv 2505.18757"
    )
    needs: ClassVar[frozenset[str]] = DIVERSITY | MASS
    cost: ClassVar[str] = "n² d + n k"
    adaptive: ClassVar[bool] = True
    before_decoder: ClassVar[bool] = True

    tau: float = 0.1

    def __post_init__(self) -> None:
        """Check the fields."""
        super().__post_init__()
        if not 0 <= self.tau <= 1:
            raise MethodError(f"tau is {self.tau}: an attention mass lies in 0 to 1")

    def stages(self, num_layers: int, causal: bool) -> tuple[Stage, ...]:
        """Before the decoder, and at 7/8 of it."""
        first = self.full_layers(num_layers, causal)
        last = max(first + 1, 7 * num_layers // 8)
        if not self.tau or last >= num_layers:
            return (Stage(first, self.budget),)
        return Stage(first, self.budget), Stage(last, self.budget)

    def stage_needs(self, stage: int) -> frozenset[str]:
        """Diversity first, masses later."""
        return MASS if stage else DIVERSITY

    def select(self, ctx: PruneContext) -> Selection:
        """The diverse set; later all of it or none."""
        if ctx.stage:
            return self._keep_or_drop(ctx)
        if keeps_all(ctx):
            return everything(ctx)
        return Selection(max_sum(ctx.features, saliency(ctx).argmax(-1), ctx.keep))

    def _keep_or_drop(self, ctx: PruneContext) -> Selection:
        """Samples of a batch stay together: one that still looks keeps vision for all."""
        asked = no_nan(attention_of(ctx, "text").float())
        looked_at = asked.sum(-1).view(-1, ctx.views).sum(-1)
        looking = no_nan(part(ctx, "text_mass").float().view(-1, ctx.views)).mean(-1)
        if bool(((looked_at < self.tau) & (looking < self.tau)).all()):
            return Selection(everything(ctx).kept[:, :0])
        return everything(ctx)
