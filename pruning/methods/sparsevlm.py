"""SparseVLM: let those prompt words judge that have to do with the picture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from pruning.base import Method, MethodError, Stage, everything, keeps_all
from pruning.context import part
from pruning.recycle import recycle
from pruning.similarity import finite
from pruning.topk import top_k
from pruning.types import Budget, Selection

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from pruning.types import PruneContext

CUTS, LAYERS = (2, 6, 15), 32
PUBLISHED = {
    0: (0, 0, 0), 64: (66, 30, 17), 96: (238, 48, 26), 128: (303, 110, 36),
    192: (300, 200, 110), 576: (576, 576, 576),
}  # fmt: skip
"""Tokens kept after each cut, of 576, by the average that the paper names; ends added."""


@dataclass(frozen=True)
class SparseVLM(Method):
    """Mean attention of the rater rows: prompt tokens of above-average relevance to the picture.

    Eq. 3 over the raters of eq. 5: those whose `softmax_text(V T')` of decoder-input embeddings,
    averaged over the picture (eq. 6), is at least its mean. By default one cut, the form that robot
    papers compare with. The profile `paper` cuts at layers 2, 6 and 15 of 32 (scaled), with the
    counts of the release's code between which `keep`, the average, is interpolated, and recycles
    (§3.3): the best `recycled` of the tokens that leave are merged to `clusters` of their number,
    which the budget includes.

    Deviations: counts are fixed by `keep` where eq. 7 derives them from the rank of the attention;
    clusters are found by cosine distance (eq. 8 and 9: Euclidean), and one becomes the mean of its
    tokens (eq. 10: their sum), at the place of its centre.

    Attributes:
        multistage: three cuts in place of one.
        recycled: share of the leaving tokens that are merged; 0 for none.
        clusters: merged tokens per recycled one.
    """

    name: ClassVar[str] = "sparsevlm"
    paper: ClassVar[str] = (
        "Zhang et al., SparseVLM: Visual Token Sparsification for Efficient Vision-Language Model "
        "Inference, ICML 2025, arXiv 2410.04417"
    )
    needs: ClassVar[frozenset[str]] = frozenset({"features", "text_features", "text_rows"})
    cost: ClassVar[str] = "n t d"
    exportable: ClassVar[bool] = True
    profiles: ClassVar[Mapping[str, Mapping[str, object]]] = {
        "paper": {"multistage": True, "recycled": 0.3, "clusters": 0.1}
    }

    multistage: bool = False
    recycled: float = 0.0
    clusters: float = 0.1

    def __post_init__(self) -> None:
        """Check the fields."""
        super().__post_init__()
        if not (0 <= self.recycled <= 1 and 0 < self.clusters <= 1):
            raise MethodError("recycled and clusters are shares: give 0 to 1")
        if self.multistage and isinstance(self.keep, int):
            raise MethodError("the schedule interpolates a ratio: give keep as one, e.g. 0.33")

    def stages(self, num_layers: int, causal: bool) -> tuple[Stage, ...]:
        """One cut, or the published three."""
        if not self.multistage or not self.prunes:
            return super().stages(num_layers, causal)
        cuts = scaled_cuts(CUTS, num_layers, self.cut)
        means = [count / 576 for count in PUBLISHED]
        ratios = [
            float(np.interp(float(self.keep), means, [row[at] / 576 for row in PUBLISHED.values()]))  # type: ignore[arg-type]
            for at in range(3)
        ]
        return tuple(Stage(cut, Budget(ratio)) for cut, ratio in zip(cuts, ratios, strict=True))

    def score(self, ctx: PruneContext) -> Float[Tensor, "g n"]:
        """Mean attention of the raters."""
        raters = text_raters(ctx)
        return (part(ctx, "text_rows").float() * raters.unsqueeze(-1)).sum(1) / raters.sum(
            1, keepdim=True
        )

    def select(self, ctx: PruneContext) -> Selection:
        """The best tokens, and where asked for the clusters of the next best."""
        if keeps_all(ctx):
            return everything(ctx)
        score = self.score(ctx)
        if not self.recycled:
            return Selection(top_k(score, ctx.keep))
        return recycle(ctx.features, score, ctx.keep, self.recycled, self.clusters)


def scaled_cuts(cuts: tuple[int, ...], num_layers: int, first: int | None) -> tuple[int, ...]:
    """Cuts of 32 layers scaled to another depth, each deeper than the one before.

    Raises:
        MethodError: when the decoder has too few layers for them.
    """
    scaled: list[int] = []
    for cut in cuts:
        least = scaled[-1] + 1 if scaled else 1
        scaled.append(max(least, round(cut * num_layers / LAYERS)))
    if first is not None:
        scaled = [cut + first - scaled[0] for cut in scaled]
    if not 0 < scaled[0] <= scaled[-1] < num_layers:
        raise MethodError(f"cuts {scaled} do not fit a decoder of {num_layers} layers")
    return tuple(scaled)


def text_raters(ctx: PruneContext) -> Float[Tensor, "g t"]:
    """1 at the raters, 0 at other prompt tokens."""
    words = finite(part(ctx, "text_features"), "text features").float()
    logits = finite(ctx.features).float() @ words.mT
    if ctx.text_mask is not None:
        logits = logits.masked_fill(~ctx.text_mask.unsqueeze(1), float("-inf"))
    relevance = logits.softmax(-1).mean(1)
    if ctx.text_mask is None:
        mean = relevance.mean(-1, keepdim=True)
    else:
        mean = relevance.sum(-1, keepdim=True) / ctx.text_mask.sum(-1, keepdim=True)
    # Rounding must not leave a prompt of equally relevant words without a rater.
    return (relevance >= mean * (1 - 1e-6)).float()
