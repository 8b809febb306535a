"""A method that prunes one view and leaves the others whole, to see which view an episode needs.

It is an instrument, not a method to deploy: it saves nearly nothing, and it is in no registry.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from pruning.base import MethodError, everything
from pruning.context import of_groups
from pruning.types import Selection
from pruning.wrappers.base import Wrapper

if TYPE_CHECKING:
    from pruning.base import Method, Stage
    from pruning.types import PruneContext


@dataclass(frozen=True)
class OneView(Wrapper):
    """Prune view `view` as the inner method would, keep the others whole.

    All views of a sample share one exact total, so `keep` is their mean; see `one_view`.

    Attributes:
        view: number of the view that is pruned.
    """

    name: ClassVar[str] = "one_view"
    paper: ClassVar[str] = "none: an instrument"
    cost: ClassVar[str] = "that of the inner method"

    view: int = 0

    def stages(self, num_layers: int, causal: bool) -> tuple[Stage, ...]:
        """The inner method's cut.

        Raises:
            MethodError: for several: behind an uneven split views have no common size.
        """
        stages = super().stages(num_layers, causal)
        if len(stages) > 1:
            raise MethodError(f"{self.wrapped.name} cuts {len(stages)} times: {_APART}")
        return stages

    def select(self, ctx: PruneContext) -> Selection:
        """The inner method's choice in one view, everything in the others, laid end to end."""
        import torch

        groups, n = ctx.features.shape[:2]
        budget = ctx.keep * ctx.views - (ctx.views - 1) * n
        rows = []
        for row in range(groups):
            whole = row % ctx.views != self.view
            group = of_groups(ctx, slice(row, row + 1), n if whole else budget)
            chosen = everything(group) if whole else self.wrapped.select(group)
            if chosen.merge is not None or chosen.memory or chosen.reuse:
                raise MethodError(f"{self.wrapped.name} does more than choose: {_APART}")
            rows.append(chosen.kept + row % ctx.views * n)
        samples = range(0, groups, ctx.views)
        kept = torch.cat([torch.cat(rows[at : at + ctx.views], 1) for at in samples])
        return Selection(kept, views=ctx.views)


_APART = "its views cannot be told apart"


def one_view(method: Method, view: int, views: int, tokens: int) -> OneView:
    """The instrument around a method.

    Args:
        method: what prunes.
        view: number of the view that it prunes.
        views: views of the policy.
        tokens: visual tokens of one view.

    Raises:
        MethodError: for a method that chooses its own budget.
    """
    if method.adaptive:
        raise MethodError(f"{method.name} chooses how much it keeps: {_APART}")
    total = method.budget.tokens(tokens) + (views - 1) * tokens
    mean = -(-total // views)  # up to views - 1 tokens more than asked, in the pruned view
    return OneView(keep=mean, inner=replace(method, keep=mean), view=view)
