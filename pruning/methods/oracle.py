"""The oracle: drop, token by token, what changes the model's answer least. For analysis only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from pruning.base import Method, MethodError, everything, keeps_all
from pruning.context import part
from pruning.similarity import finite
from pruning.topk import no_nan
from pruning.types import Selection

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from pruning.types import PruneContext

    Answer = Callable[[Sequence[Tensor]], Tensor]


@dataclass(frozen=True)
class Oracle(Method):
    """Greedy elimination by output change: how much a cut at this depth must cost at least.

    Each round asks the model once per living token what it answers without it, and drops those
    whose absence changes the answer least (squared distance to the dense answer). It knows the
    answer that it is to preserve, and costs up to `rounds` times as many decoder passes as there
    are tokens: no method to deploy, but the ceiling for those that are.

    Attributes:
        rounds: rounds of elimination; as many as tokens leave for the full greedy one.
    """

    name: ClassVar[str] = "oracle"
    paper: ClassVar[str] = "none: upper bound for selection at a given cut"
    needs: ClassVar[frozenset[str]] = frozenset({"features", "output"})
    cost: ClassVar[str] = "rounds n decoder passes"

    rounds: int = 4

    def __post_init__(self) -> None:
        """Check the fields."""
        super().__post_init__()
        if self.rounds < 1:
            raise MethodError(f"rounds is {self.rounds}: give 1 or more")

    def select(self, ctx: PruneContext) -> Selection:
        """What remains of every view.

        Raises:
            MethodError: for more than one sample, whose answers would mix.
            ScoreError: when an embedding or an answer is not finite.
        """
        if keeps_all(ctx):
            return everything(ctx)
        import torch

        if ctx.features.shape[0] != ctx.views:
            raise MethodError("oracle asks about one sample at a time: give a batch of 1")
        answer: Answer = part(ctx, "output")
        finite(ctx.features)
        alive = [row.tolist() for row in everything(ctx).kept]
        dense = answer([torch.tensor(row) for row in alive])
        for left in range(self.rounds, 0, -1):
            changes = [_changes(answer, dense, alive, view) for view in range(len(alive))]
            for view, change in enumerate(changes):
                drop = -(-(len(alive[view]) - ctx.keep) // left)
                order = sorted((value, -at) for at, value in enumerate(change))
                gone = {-at for _, at in order[:drop]}
                alive[view] = [token for at, token in enumerate(alive[view]) if at not in gone]
        return Selection(torch.tensor(alive, device=ctx.features.device))


def _changes(answer: Answer, dense: Tensor, alive: list[list[int]], view: int) -> list[float]:
    """Squared change of the answer without each living token of a view."""
    import torch

    rows = [torch.tensor(row) for row in alive]
    changes = []
    for at in range(len(alive[view])):
        rest = alive[view][:at] + alive[view][at + 1 :]
        rows[view] = torch.tensor(rest, dtype=torch.int64)
        changes.append(float((answer(rows) - dense).float().square().sum()))
    no_nan(torch.tensor([changes]))
    return changes
