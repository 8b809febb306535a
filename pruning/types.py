"""The values that a pruning method sees and gives. Pure data; no model, no robot.

Everything is laid out in *groups*: one row per (batch element, view), each with its own budget.
A method never sees across groups, so per-view budgets are independent by construction; only a
method that splits one budget over the views of a sample looks at `views` rows at once. Images of
another size are groups of another context.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from jaxtyping import Bool, Float, Int64
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


class Heads(NamedTuple):
    """Rotated queries of the text rows and keys of the visual tokens, at the last full layer."""

    q: Float[Tensor, "g h t e"]
    k: Float[Tensor, "g kv n e"]


@dataclass(frozen=True)
class PruneContext:
    """What a method may look at, for `g` groups of `n` visual tokens each.

    A field that the method did not declare as a need may be None: it was not computed.

    Attributes:
        features: decoder-input embeddings of the visual tokens (projector output).
        keep: tokens to keep in every group.
        attention: mean attention (over heads and rows) that visual tokens receive, by kind. At the
            last full layer: `last` (last prompt row), `prefill` (all prompt and visual rows),
            `text` (text rows), `action` (action rows, parallel decoding only). At the layer about
            to run: `text_next` (text rows), `text_qk` (their plain products with the keys, before
            rotary phases and softmax). In the vision tower: `tower_mean` (patch rows), `tower_cls`
            (class token, where a tower has one).
        history: forecast of the action-to-vision attention from earlier queries; None in warm-up.
        seed: for methods that draw; the same seed gives the same set.
        text_features: decoder-input embeddings of the prompt.
        text_mask: False at padding of the prompt; None when there is none.
        text_rows: attention of every text row at the last full layer, mean over heads.
        text_hidden: the prompt's hidden states where the cut is.
        text_mass: mean attention of visual rows to the prompt, at the last full layer.
        hidden: hidden states of the visual tokens where the cut is.
        tower_features: vision tower's output before the projector.
        tower_keys: keys of the tower's last block, mean over heads.
        transition: what the layers so far did to every token; see `pruning.transition`.
        heads: queries and keys by head.
        pixels: pixels of every patch, flat.
        project: the projector, from `tower_features` to `features`.
        output: the model's answer when the given tokens of every view live.
        memory: what the last selection remembered; empty after a reset. Rows are groups.
        stage: number of this cut among the method's cuts.
        views: groups of one sample, which lie side by side.
    """

    features: Float[Tensor, "g n d"]
    keep: int
    attention: Mapping[str, Float[Tensor, "g n"]] = field(default_factory=dict)
    history: Float[Tensor, "g n"] | None = None
    seed: int = 0
    text_features: Float[Tensor, "g t d"] | None = None
    text_mask: Bool[Tensor, "g t"] | None = None
    text_rows: Float[Tensor, "g t n"] | None = None
    text_hidden: Float[Tensor, "g t d"] | None = None
    text_mass: Float[Tensor, " g"] | None = None
    hidden: Float[Tensor, "g n d"] | None = None
    tower_features: Float[Tensor, "g n w"] | None = None
    tower_keys: Float[Tensor, "g n e"] | None = None
    transition: Float[Tensor, "g n"] | None = None
    heads: Heads | None = None
    pixels: Float[Tensor, "g n p"] | None = None
    project: Callable[[Float[Tensor, "... w"]], Float[Tensor, "... d"]] | None = None
    output: Callable[[Sequence[Int64[Tensor, " k"]]], Float[Tensor, ...]] | None = None
    memory: Mapping[str, Tensor] = field(default_factory=dict)
    stage: int = 0
    views: int = 1


@dataclass(frozen=True)
class Selection:
    """Which tokens live.

    Attributes:
        kept: indices into each group, sorted, unique, exactly `keep` of them. An adaptive method
            keeps as many as it chooses (see `Method`), the same number of every group.
        merge: what each kept token becomes, as weights of the tokens that were there: rows sum
            to 1, the row of an unmerged token is 1 at itself. None when nothing is merged.
        memory: to be handed in with the next query; rows are groups.
        views: views that one row of `kept` spans. Above 1 the budget is split unevenly, and indices
            run over the tokens of these views laid end to end.
        reuse: the other tokens stay, with keys and values of the query before, not recomputed.
    """

    kept: Int64[Tensor, "g k"]
    merge: Float[Tensor, "g k n"] | None = None
    memory: Mapping[str, Tensor] = field(default_factory=dict)
    views: int = 1
    reuse: bool = False
