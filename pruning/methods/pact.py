"""PACT: keep as few as cover what is perceived and what is acted on, more where the two differ."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from pruning.base import Method, MethodError, attention_of, everything, keeps_all
from pruning.history import HistoryRule
from pruning.ladder import rung_at_least
from pruning.similarity import shares
from pruning.topk import top_k
from pruning.types import Budget, Selection

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from pruning.types import PruneContext

LEAST, MOST, STEP = 0.15, 0.70, 0.10


@dataclass(frozen=True)
class PACT(Method):
    """Joint coverage of perception (prompt attention) and action (forecast of action attention).

    `conflict` is their Jensen-Shannon divergence (base 2); the mass to cover is
    `clip(theta + 0.1 conflict, 0.15, 0.7)` of both. Tokens rank by the mean of both shares, and the
    lowest ladder rung that covers enough is kept, from `least` to `keep`. Before there is history,
    perception stands alone.

    Deviations: views share one rung, the one that the most demanding view needs. The release
    chooses among 12.5, 25, 50, 75 and 100 %; here `keep` is the highest rung, and since
    `keep=1.0` is the dense model for every method, 100 % is no rung: give 0.75 for the others.

    Attributes:
        least: share of each view on the lowest rung; a `keep` below it is kept as it is.
        theta: share of the mass to cover where perception and action agree.
        window: queries that the forecast looks back on.
        gamma: weight of a query relative to the next newer one.
        action_layer: layer whose action rows are remembered; none for 15 of 32, scaled.
    """

    name: ClassVar[str] = "pact"
    paper: ClassVar[str] = "PACT, code only: github.com/yangmu-0/pact-vla-pruner"
    needs: ClassVar[frozenset[str]] = frozenset({"prefill", "history"})
    cost: ClassVar[str] = "(n + t) n d"
    adaptive: ClassVar[bool] = True

    least: float = 0.125
    theta: float = 0.3
    window: int = 3
    gamma: float = 0.8
    action_layer: int | None = None

    def __post_init__(self) -> None:
        """Check the fields."""
        super().__post_init__()
        if not 0 < self.least <= 1:
            raise MethodError(f"least is {self.least}: a share of a view lies in (0, 1]")
        if not 0 < self.theta <= 1:
            raise MethodError(f"theta is {self.theta}: a share of the mass lies in (0, 1]")
        HistoryRule(self.window, self.gamma, layer=self.action_layer)

    @property
    def history(self) -> HistoryRule:
        """Odds with decay, as `vla_pruner` remembers them."""
        return HistoryRule(self.window, self.gamma, layer=self.action_layer)

    def select(self, ctx: PruneContext) -> Selection:
        """The rung that covers both."""
        if keeps_all(ctx):
            return everything(ctx)
        seen = shares(attention_of(ctx, "prefill"))
        acted = seen if ctx.history is None else shares(ctx.history)
        target = (self.theta + STEP * divergence(seen, acted)).clamp(LEAST, MOST)
        joint = (seen + acted) / 2
        order = joint.sort(dim=-1, descending=True, stable=True).indices
        covered = seen.gather(1, order).cumsum(-1).minimum(acted.gather(1, order).cumsum(-1))
        needed, n = int((covered < target.unsqueeze(-1)).sum(-1).amax()) + 1, joint.shape[1]
        rung = rung_at_least(max(needed, Budget(self.least).tokens(n)), n, ctx.keep)
        return Selection(top_k(joint, rung))


def divergence(p: Float[Tensor, "g n"], q: Float[Tensor, "g n"]) -> Float[Tensor, " g"]:
    """Jensen-Shannon divergence in bits: 0 where equal, 1 where disjoint."""
    middle = (p + q) / 2
    both = _relative(p, middle) + _relative(q, middle)
    return (both / 2).clamp(0, 1)


def _relative(p: Tensor, q: Tensor) -> Tensor:
    tiny = 1e-30
    return (p * ((p + tiny) / (q + tiny)).log2()).sum(-1)
