"""The values that a pruning method sees and gives. Pure data; no model, no robot.

Everything is laid out in *groups*: one row per (batch element, view), each with its own budget.
A method never sees across groups, so per-view budgets are independent by construction.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jaxtyping import Float, Int64
    from torch import Tensor


class BudgetError(ValueError):
    """A keep ratio outside (0, 1] or a token count that the grid cannot give."""


@dataclass(frozen=True)
class Budget:
    """How many visual tokens of each view live: a ratio (float) or a count (int).

    A ratio must lie in (0, 1]; a count must be at least 1 and at most the tokens of the view.
    `Budget(1.0)` keeps everything and is exactly the dense model.

    Raises:
        BudgetError: at construction for an impossible value, in `tokens` for too large a count.
    """

    keep: float | int

    def __post_init__(self) -> None:
        """Refuse what no view can give."""
        keep = self.keep
        if isinstance(keep, bool) or not isinstance(keep, (int, float)):
            raise BudgetError(f"keep is {keep!r}: give a ratio in (0, 1] or a token count")
        if isinstance(keep, int):
            if keep < 1:
                raise BudgetError(f"keep is {keep} tokens: at least one token per view must live")
        elif not (math.isfinite(keep) and 0.0 < keep <= 1.0):
            raise BudgetError(f"keep is {keep}: a ratio lies in (0, 1], a count is a whole number")

    def tokens(self, n: int) -> int:
        """Tokens kept of a view of `n`: the count, or `round(n * ratio)` but at least one."""
        if isinstance(self.keep, int):
            if self.keep > n:
                raise BudgetError(f"keep is {self.keep} tokens, a view has only {n}")
            return self.keep
        return max(1, math.floor(n * self.keep + 0.5))


@dataclass(frozen=True)
class PruneContext:
    """What a method may look at, for `g` groups of `n` visual tokens each.

    Attributes:
        features: decoder-input embeddings of the visual tokens (projector output).
        keep: tokens to keep in every group.
        attention: mean attention (over heads and rows) that visual tokens receive at the last full
            layer, by row kind: `last` (last prompt row), `prefill` (all prompt and visual rows),
            `text` (text rows), `action` (action rows, parallel decoding only).
        history: forecast of the action-to-vision attention from earlier queries; None in warm-up.
        seed: for methods that draw; the same seed gives the same set.
    """

    features: Float[Tensor, "g n d"]
    keep: int
    attention: Mapping[str, Float[Tensor, "g n"]] = field(default_factory=dict)
    history: Float[Tensor, "g n"] | None = None
    seed: int = 0


@dataclass(frozen=True)
class Selection:
    """Which tokens live.

    Attributes:
        kept: indices into each group, sorted, unique, exactly `keep` of them.
        source: per kept token, which pool asked for it (1 semantic, 2 action, 3 both, 0 other);
            for pictures only.
    """

    kept: Int64[Tensor, "g k"]
    source: Int64[Tensor, "g k"] | None = None
