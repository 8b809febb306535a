"""VLA-Pruner: what the instruction looks at, what the action looked at, and no two tokens alike.

Two pools at full budget each, the top-k of the prompt's attention and the top-k of the action
attention forecast from earlier queries; their union is thinned to the budget by max-min diversity.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pruning.base import Method, MethodError, attention_of, everything, keeps_all
from pruning.history import HistoryRule
from pruning.maxmin import max_min
from pruning.topk import top_mask
from pruning.types import Selection

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jaxtyping import Float
    from torch import Tensor

    from pruning.types import PruneContext

CHOICES = {
    "semantic_rows": ("prefill", "last", "text"),
    "hold": ("decay", "zero"),
    "warmup": ("semantic", "dense", "current"),
    "action_source": ("history", "current"),
}
PAPER = {"hold": "zero", "normalise": False, "warmup": "dense"}
RELEASE = {**PAPER, "semantic_rows": "last", "bf16": True}


@dataclass(frozen=True)
class VLAPruner(Method):
    """Dual-level token selection with temporal memory.

    Semantic score, action score, windowed forecast, union of both pools and max-min filter are
    written after the paper's text. The defaults mend what starves or skews the released history;
    `docs/vla_pruner.md` has one ablation per field. Profiles: `paper` (the published algorithm),
    `release` (the published code for OpenVLA), `release_oft` (that for OpenVLA-OFT).

    Deviation of every profile, `paper` included: action attention is remembered from one layer,
    15 of 32 as in the published code; the paper's text averages it over the second half of the
    layers.

    Attributes:
        semantic_rows: prompt rows whose attention is the semantic score.
        action_source: action attention from the forecast, or from this query's own action rows
            at the cut (parallel decoding only).
        window: queries that the forecast looks back on.
        gamma: weight of a query relative to the next newer one.
        hold: a pruned token's entry: its last known value times gamma, or zero.
        normalise: remember odds against non-visual tokens, comparable between dense and pruned
            queries, instead of raw probabilities.
        warmup: before there is history: semantic pool alone, dense until the window is full, or
            this query's own action rows (parallel decoding only).
        action_layer: layer whose action rows are remembered; none for 15 of 32, scaled.
        bf16: round forecast and distances to bfloat16, as the released code does; makes ties.
        row_stride: average every so many `prefill` rows only; 1 is the paper's exact mean.
    """

    name: ClassVar[str] = "vla_pruner"
    paper: ClassVar[str] = (
        "VLA-Pruner: Bridging the Semantic-Action Gap in Visual Token Pruning for Efficient VLA "
        "Inference, arXiv 2511.16449"
    )
    cost: ClassVar[str] = "(n + t) n d + k² d"
    exportable: ClassVar[bool] = True
    profiles: ClassVar[Mapping[str, Mapping[str, object]]] = {
        "paper": PAPER,
        "release": RELEASE,
        "release_oft": {**RELEASE, "semantic_rows": "prefill"},
    }

    semantic_rows: Literal["prefill", "last", "text"] = "prefill"
    action_source: Literal["history", "current"] = "history"
    window: int = 3
    gamma: float = 0.8
    hold: Literal["decay", "zero"] = "decay"
    normalise: bool = True
    warmup: Literal["semantic", "dense", "current"] = "semantic"
    action_layer: int | None = None
    bf16: bool = False
    row_stride: int = 1

    def __post_init__(self) -> None:
        """Check the fields."""
        super().__post_init__()
        for field, valid in CHOICES.items():
            if getattr(self, field) not in valid:
                given = getattr(self, field)
                raise MethodError(f"{field} is {given!r}: give one of {', '.join(valid)}")
        HistoryRule(self.window, self.gamma, self.hold, layer=self.action_layer)

    @classmethod
    def release(cls, keep: float | int, **fields: Any) -> VLAPruner:
        """The published code's behaviour for OpenVLA: `make_method(..., compat="release")`."""
        chosen: dict[str, Any] = {**cls.profiles["release"], **fields}
        return cls(keep, **chosen)

    @property
    def needs(self) -> frozenset[str]:  # type: ignore[override]  # fixed per class elsewhere
        """Attention rows, features, and history as the fields ask for them."""
        needs = {"features", self.semantic_rows}
        if "current" in (self.action_source, self.warmup):
            needs.add("action")
        if self.action_source == "history":
            needs.add("history")
        return frozenset(needs)

    @property
    def history(self) -> HistoryRule | None:
        """The memory rule, unless the action attention is this query's own."""
        if self.action_source == "current":
            return None
        dense = self.warmup == "dense"
        return HistoryRule(
            self.window, self.gamma, self.hold, self.normalise, dense, self.action_layer
        )

    def select(self, ctx: PruneContext) -> Selection:
        """Both pools, their union, and the most diverse `ctx.keep` of it."""
        if keeps_all(ctx):
            return everything(ctx)
        import torch

        ranked, guide = attention_of(ctx, self.semantic_rows), self._guide(ctx)
        if guide is None:
            semantic = top_mask(ranked, ctx.keep)
            action = torch.zeros_like(semantic)
        else:  # both pools in one pass
            both = torch.cat([ranked.float(), guide.float()])
            semantic, action = top_mask(both, ctx.keep).chunk(2)
        wanted = semantic | action
        return Selection(max_min(ctx.features, wanted, ctx.keep, self.bf16, 2 * ctx.keep))

    def _guide(self, ctx: PruneContext) -> Float[Tensor, "g n"] | None:
        """The action attention that ranks the second pool; None in a semantic warm-up."""
        cold = ctx.history is None and self.warmup == "current"
        current = self.action_source == "current" or cold
        guide = attention_of(ctx, "action") if current else ctx.history
        if guide is None or not self.bf16:
            return guide
        import torch

        guide = guide.float()
        total = guide.sum(-1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
        return (guide / total).to(torch.bfloat16).float()
