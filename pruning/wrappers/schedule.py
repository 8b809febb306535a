"""A schedule over depth: any method, asked again at deeper layers with smaller budgets."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, ClassVar

from pruning.base import LAYER_NEEDS, MethodError, Stage
from pruning.types import Budget
from pruning.wrappers.base import Wrapper

if TYPE_CHECKING:
    from pruning.types import PruneContext, Selection


@dataclass(frozen=True)
class Schedule(Wrapper):
    """Cuts at several depths, each asking the inner method among the tokens that still live.

    By default three cuts, at the inner method's, at 1/2 and at 3/4 of the layers, whose budgets
    fall in equal ratios to `keep`: `keep^(1/3)`, `keep^(2/3)`, `keep`.

    Attributes:
        cuts: full layers before each cut, e.g. `2-6-15`; all or none.
        keeps: keep ratios, e.g. `0.5-0.35-0.2`; the last one must be `keep`.
    """

    name: ClassVar[str] = "schedule"
    paper: ClassVar[str] = "none: pyramid of budgets, as in PyramidDrop, arXiv 2410.17247"
    traceable: ClassVar[bool] = True
    cost: ClassVar[str] = "inner, per cut"

    cuts: tuple[int, ...] = ()
    keeps: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        """Check the fields."""
        super().__post_init__()
        object.__setattr__(self, "cuts", tuple(self.cuts))
        object.__setattr__(self, "keeps", tuple(self.keeps))
        if isinstance(self.keep, int) and self.prunes:
            raise MethodError(
                f"a schedule goes by ratios, keep is {self.keep} tokens: give a ratio"
            )
        if any(later <= earlier for earlier, later in pairwise(self.cuts)):
            raise MethodError(f"cuts are {self.cuts}: each must be deeper than the one before")
        if self.keeps and self.prunes:
            self._check_keeps()

    def _check_keeps(self) -> None:
        budgets = [Budget(keep).keep for keep in self.keeps]
        if len(budgets) != len(self.cuts):
            raise MethodError(f"{len(self.cuts)} cuts and {len(budgets)} keeps: give one per cut")
        if sorted(budgets, reverse=True) != budgets or budgets[-1] != self.keep:
            raise MethodError(f"keeps are {self.keeps}: they must fall, the last being {self.keep}")

    def stages(self, num_layers: int, causal: bool) -> tuple[Stage, ...]:
        """The cuts of the schedule.

        Raises:
            MethodError: when they do not fit the decoder.
        """
        if not self.prunes:
            return super().stages(num_layers, causal)
        cuts = self.cuts or _spread(self.full_layers(num_layers, causal), num_layers)
        if cuts[-1] >= num_layers:
            raise MethodError(f"cuts {cuts} do not fit a decoder of {num_layers} layers")
        if cuts[0] == 0 and self.wrapped.stage_needs(0) & LAYER_NEEDS:
            raise MethodError(
                f"{self.wrapped.name} reads attention: the first cut must be 1 or more"
            )
        keep = float(self.keep)  # type: ignore[arg-type]
        keeps = self.keeps or [keep ** ((at + 1) / len(cuts)) for at in range(len(cuts))]
        return tuple(Stage(cut, Budget(ratio)) for cut, ratio in zip(cuts, keeps, strict=True))

    def stage_needs(self, stage: int) -> frozenset[str]:
        """The same at every cut."""
        return self.wrapped.stage_needs(0)

    def select(self, ctx: PruneContext) -> Selection:
        """The inner method's choice among the living."""
        return self.wrapped.select(ctx)


def _spread(first: int, num_layers: int) -> tuple[int, ...]:
    cuts = {first, max(first, num_layers // 2), max(first, 3 * num_layers // 4)}
    return tuple(sorted(cuts))
