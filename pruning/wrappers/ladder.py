"""Adaptive budget: as few rungs up the ladder as the scores allow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from pruning.base import MethodError, everything, keeps_all
from pruning.ladder import rung_at_least
from pruning.similarity import shares
from pruning.topk import top_k
from pruning.types import Selection
from pruning.wrappers.base import Wrapper

if TYPE_CHECKING:
    from pruning.types import PruneContext


@dataclass(frozen=True)
class Ladder(Wrapper):
    """The lowest rung whose best tokens hold `mass` of the scores' sum, in every view.

    `keep` is the highest rung. Scores below 0 count as 0. The count is read on the host: one engine
    or graph per rung stands ready, and this says which.

    Attributes:
        mass: share of the scores to hold.
    """

    name: ClassVar[str] = "ladder"
    paper: ClassVar[str] = "none: coverage of the score mass"
    scores: ClassVar[bool] = True
    adaptive: ClassVar[bool] = True
    cost: ClassVar[str] = "n log n"

    mass: float = 0.5

    def __post_init__(self) -> None:
        """Check the fields."""
        super().__post_init__()
        if not 0 < self.mass <= 1:
            raise MethodError(f"mass is {self.mass}: a share lies in (0, 1]")

    def select(self, ctx: PruneContext) -> Selection:
        """The rung's best tokens."""
        if keeps_all(ctx):
            return everything(ctx)
        score = self.wrapped.score(ctx).float()
        held = shares(score.clamp_min(0)).sort(dim=-1, descending=True).values.cumsum(-1)
        needed = int((held < self.mass - 1e-6).sum(-1).amax()) + 1
        kept = top_k(score, rung_at_least(needed, score.shape[1], ctx.keep))
        remembers = isinstance(self.wrapped, Wrapper)
        return Selection(kept, memory=self.wrapped.select(ctx).memory if remembers else {})
