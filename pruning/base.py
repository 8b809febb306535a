"""What every pruning method is: a frozen dataclass whose fields are its paper's hyper-parameters.

A method stands on one of two rungs: `score` says how much each token is worth and the shared top-k
does the rest; `select` chooses freely. It sees a `PruneContext`, never a model.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from pruning.topk import top_k
from pruning.types import Budget, BudgetError, PruneContext, Selection

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jaxtyping import Float
    from torch import Tensor

    from pruning.history import HistoryRule

ROW_KINDS = frozenset({"last", "prefill", "text", "action"})
"""Attention of the last full layer, averaged over rows of a kind."""

LAYER_NEEDS = ROW_KINDS | {"text_rows", "text_mass", "heads", "transition"}
"""What there is only after a decoder layer has run."""

ATTENTION = ROW_KINDS | {"text_next", "text_qk", "tower_attention"}
"""Needs that are met in `PruneContext.attention`; all others are fields of the context."""

NEEDS = (
    LAYER_NEEDS
    | ATTENTION
    | {"features", "history", "text_features", "text_hidden", "hidden", "tower_features"}
    | {"tower_keys", "pixels", "project", "output"}
)


class MethodError(ValueError):
    """A method that cannot be built, or cannot be paired with this model or context."""


def default_cut(num_layers: int, causal: bool) -> int:
    """Full decoder layers before the cut: the released rule of VLA-Pruner, scaled to the depth.

    The release runs 3 of 32 layers in full for OpenVLA (causal) and 4 of 32 for OpenVLA-OFT
    (bidirectional). Scaled: `max(2, round(3 / 32 * L))`, one more for a bidirectional decoder of at
    least 16 layers; never so many that no layer is left to run pruned.

    Args:
        num_layers: decoder layers.
        causal: autoregressive decoding (True) or parallel chunk decoding (False).
    """
    cut = max(2, round(3 / 32 * num_layers))
    if not causal and num_layers >= 16:
        cut += 1
    return min(cut, num_layers - 1)


class Stage(NamedTuple):
    """One of a method's cuts: full layers before it, and the budget that lives behind it."""

    cut: int
    keep: Budget


@dataclass(frozen=True)
class Method:
    """Base of all pruning methods.

    Attributes:
        keep: tokens of each view that live: a ratio in (0, 1] or a count; 1.0 is the dense model,
            of adaptive methods too.
        cut: full decoder layers before pruned ones; none for the method's own rule.

    A subclass says what it is in class attributes: its `name` and `paper`; what it `needs` of a
    context (`NEEDS`); whether its selection is `exportable` (static shapes, no host
    synchronisation, no drawing); whether it is `adaptive` (chooses itself how many tokens it keeps:
    a rung of the ladder up to `keep`, or none at a later cut; where the others stay and are reused,
    a rung from `keep` up) and `before_decoder` (its cut is 0 unless told otherwise); what its
    choice `cost`s for `n` tokens of width `d`; `profiles`, sets of fields for `make_method`; and
    `row_stride`, a field where prompt rows are averaged and may be sampled.

    Raises:
        BudgetError: at construction, for a `keep` that no view can give.
        MethodError: at construction, for an impossible `cut` or `row_stride`.
    """

    name: ClassVar[str] = ""
    paper: ClassVar[str] = ""
    cost: ClassVar[str] = ""
    exportable: ClassVar[bool] = False
    adaptive: ClassVar[bool] = False
    before_decoder: ClassVar[bool] = False
    profiles: ClassVar[Mapping[str, Mapping[str, object]]] = {}
    needs: ClassVar[frozenset[str]] = frozenset()
    row_stride = 1  # unannotated: becomes a field only in methods that average rows

    keep: Budget | float | int
    cut: int | None = None

    def __post_init__(self) -> None:
        """Check the fields; `keep` becomes a plain number."""
        object.__setattr__(self, "keep", self.budget.keep)
        whole = isinstance(self.cut, int) and not isinstance(self.cut, bool)
        if self.cut is not None and not (whole and self.cut >= 0):
            raise MethodError(f"cut is {self.cut!r}: give a number of full layers, or none")
        if self.row_stride < 1:
            raise MethodError(f"row_stride is {self.row_stride}: give 1 for every row")

    @property
    def budget(self) -> Budget:
        """`keep` as a budget: `method.budget.tokens(n)` is the count for a view of `n`."""
        return self.keep if isinstance(self.keep, Budget) else Budget(self.keep)

    @property
    def prunes(self) -> bool:
        """False when every token lives, whatever the view."""
        return self.keep != 1 or isinstance(self.keep, int)

    @property
    def history(self) -> HistoryRule | None:
        """How this method remembers action attention; None when it has no memory."""
        return None

    def full_layers(self, num_layers: int, causal: bool) -> int:
        """The cut for a decoder of this depth.

        Raises:
            MethodError: when no layer would run pruned, or none runs before attention is read.
        """
        cut = self.cut
        if cut is None:
            cut = 0 if self.before_decoder else default_cut(num_layers, causal)
        if not cut < num_layers:
            raise MethodError(f"cut is {cut} of {num_layers} layers: none is left to run pruned")
        if cut == 0 and self.stage_needs(0) & LAYER_NEEDS:
            raise MethodError(f"{self.name} reads attention, so cut must be at least 1")
        return cut

    def at_cut(self, cut: int) -> Method:
        """This method with the cut that a checkpoint asks for, unless it has one of its own."""
        own = self.cut is not None or self.before_decoder
        return self if own else replace(self, cut=cut)

    def stages(self, num_layers: int, causal: bool) -> tuple[Stage, ...]:
        """Every cut with its budget, in order of depth; most methods have one.

        Raises:
            MethodError: as `full_layers`.
        """
        return (Stage(self.full_layers(num_layers, causal), self.budget),)

    def stage_needs(self, stage: int) -> frozenset[str]:
        """What this stage reads; all of `needs` unless a method says otherwise."""
        return self.needs

    def score(self, ctx: PruneContext) -> Float[Tensor, "g n"]:
        """How much each token is worth; the largest `ctx.keep` of every group live."""
        raise NotImplementedError(f"{type(self).__name__} must define score(ctx) or select(ctx)")

    def select(self, ctx: PruneContext) -> Selection:
        """Which tokens live.

        Raises:
            MethodError: when the context lacks attention that this method reads.
            ScoreError: when a score is NaN or an embedding not finite (on the CPU; an accelerator
                is not waited for).
        """
        if keeps_all(ctx):
            return everything(ctx)
        return Selection(top_k(self.score(ctx), ctx.keep))


def keeps_all(ctx: PruneContext) -> bool:
    """True when the budget is the whole view, so that there is nothing to choose.

    Raises:
        BudgetError: when the budget is impossible for this view.
    """
    n = ctx.features.shape[1]
    if not 1 <= ctx.keep <= n:
        raise BudgetError(f"keep is {ctx.keep} tokens, a view has {n}: give 1 to {n}")
    return ctx.keep == n


def everything(ctx: PruneContext) -> Selection:
    """The selection that prunes nothing."""
    import torch

    groups, n = ctx.features.shape[:2]
    return Selection(torch.arange(n, device=ctx.features.device).expand(groups, n))


def attention_of(ctx: PruneContext, kind: str) -> Float[Tensor, "g n"]:
    """The attention that visual tokens receive from rows of `kind`.

    Raises:
        MethodError: when the model did not provide it.
    """
    if kind not in ctx.attention:
        have = ", ".join(sorted(ctx.attention)) or "none"
        raise MethodError(f"attention of {kind!r} rows is needed, the model provided: {have}")
    return ctx.attention[kind]
