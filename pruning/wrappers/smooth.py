"""Temporal smoothing: rank by a running mean of scores, so that one frame cannot flip the set."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from pruning.base import MethodError, everything, keeps_all
from pruning.topk import top_k
from pruning.types import Selection
from pruning.wrappers.base import Wrapper

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from pruning.base import Stage
    from pruning.types import PruneContext

KEY = "smooth.score"


@dataclass(frozen=True)
class Smooth(Wrapper):
    """`s(t) = weight s(t-1) + (1 - weight) score(t)`, around any method that ranks tokens.

    The mean is kept over the whole view, so a token that left can come back. It is forgotten with
    everything else when episode, instruction or cameras change.

    Attributes:
        weight: of the past; 0 smooths nothing.
    """

    name: ClassVar[str] = "smooth"
    paper: ClassVar[str] = "none: exponential moving average"
    traceable: ClassVar[bool] = True
    scores: ClassVar[bool] = True
    cost: ClassVar[str] = "n"

    weight: float = 0.5

    def __post_init__(self) -> None:
        """Check the fields."""
        super().__post_init__()
        if not 0 <= self.weight < 1:
            raise MethodError(f"weight is {self.weight}: give 0 up to below 1")

    def stages(self, num_layers: int, causal: bool) -> tuple[Stage, ...]:
        """The inner method's cut.

        Raises:
            MethodError: for several, whose scores are not of the same tokens.
        """
        stages = super().stages(num_layers, causal)
        if len(stages) > 1:
            raise MethodError("smooth needs one cut: wrap it in the schedule, not the reverse")
        return stages

    def score(self, ctx: PruneContext) -> Float[Tensor, "g n"]:
        """The running mean."""
        inside = {key: value for key, value in ctx.memory.items() if key != KEY}
        score, before = self.wrapped.score(replace(ctx, memory=inside)).float(), ctx.memory.get(KEY)
        return score if before is None else self.weight * before + (1 - self.weight) * score

    def select(self, ctx: PruneContext) -> Selection:
        """The best by running mean, which is remembered."""
        score = self.score(ctx)
        kept = everything(ctx).kept if keeps_all(ctx) else top_k(score, ctx.keep)
        return Selection(kept, memory={KEY: score})
