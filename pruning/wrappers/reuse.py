"""Reuse the last selection while the picture has hardly changed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from pruning.base import MethodError, Stage, everything, keeps_all
from pruning.similarity import unit
from pruning.topk import on_host
from pruning.types import Selection
from pruning.wrappers.base import Wrapper, chain

if TYPE_CHECKING:
    from torch import Tensor

    from pruning.types import PruneContext

KEPT, SEEN, AGE = "reuse.kept", "reuse.seen", "reuse.age"


@dataclass(frozen=True)
class Reuse(Wrapper):
    """The last kept set stands while every token's cosine with the selecting frame is high.

    TokenSelect (arXiv 2411.02886) gates its selection cache by the cosine of two queries. A view is
    compared token by token here, and the least counts, so that one moved object is enough to
    select again.

    Attributes:
        cosine: least cosine of any token for the set to stand.
        longest: queries after which a set is chosen again in any case.
    """

    name: ClassVar[str] = "reuse"
    paper: ClassVar[str] = "after TokenSelect's selection cache, arXiv 2411.02886"
    own_needs: ClassVar[frozenset[str]] = frozenset({"features"})
    traceable: ClassVar[bool] = True
    cost: ClassVar[str] = "n d"

    cosine: float = 0.9
    longest: int = 10

    def __post_init__(self) -> None:
        """Check the fields."""
        super().__post_init__()
        if not (-1 <= self.cosine <= 1 and self.longest >= 1):
            raise MethodError("cosine lies in -1 to 1, longest is at least 1")

    def stages(self, num_layers: int, causal: bool) -> tuple[Stage, ...]:
        """The inner method's cut.

        Raises:
            MethodError: for several cuts, or an inner method whose count varies.
        """
        stages = super().stages(num_layers, causal)
        uneven = any(method.name == "quota" for method in chain(self.wrapped))
        if len(stages) > 1 or self.wrapped.adaptive or uneven:
            raise MethodError(
                f"reuse needs one cut and one count for every view, {self.wrapped.name} has not"
            )
        return stages

    def select(self, ctx: PruneContext) -> Selection:
        """The last set where it stands, the inner method's elsewhere.

        Raises:
            MethodError: when the inner method merges tokens: a merge is of one frame alone.
        """
        if keeps_all(ctx):
            return everything(ctx)
        seen, last = unit(ctx.features), self._last(ctx)
        inside = {key: value for key, value in ctx.memory.items() if key not in (KEPT, SEEN, AGE)}
        if last is None:
            fresh = self._fresh(replace(ctx, memory=inside))
            return _remember(fresh, fresh.kept, seen, (seen[:, :1, 0] * 0).long())
        kept, before, age = last
        likeness = (seen * before).sum(-1).amin(-1, keepdim=True)
        stands = (likeness >= self.cosine) & (age + 1 < self.longest)
        if on_host(seen) and bool(stands.all()):
            return Selection(kept, memory={**ctx.memory, AGE: age + 1})
        fresh = self._fresh(replace(ctx, memory=inside))
        seen = before.where(stands.unsqueeze(-1), seen)
        return _remember(fresh, kept.where(stands, fresh.kept), seen, (age + 1) * stands)

    def _last(self, ctx: PruneContext) -> tuple[Tensor, Tensor, Tensor] | None:
        """The last set, the frame that it was chosen on, and its age; None when there is none."""
        if KEPT not in ctx.memory or ctx.memory[KEPT].shape[-1] != ctx.keep:
            return None
        return ctx.memory[KEPT], ctx.memory[SEEN], ctx.memory[AGE]

    def _fresh(self, ctx: PruneContext) -> Selection:
        fresh = self.wrapped.select(ctx)
        if fresh.merge is not None:
            raise MethodError(f"reuse cannot hold what {self.wrapped.name} merges from one frame")
        return fresh


def _remember(fresh: Selection, kept: Tensor, seen: Tensor, age: Tensor) -> Selection:
    return Selection(kept, memory={**fresh.memory, KEPT: kept, SEEN: seen, AGE: age})
