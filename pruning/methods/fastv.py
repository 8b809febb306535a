"""FastV: keep what the last prompt token looks at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from pruning.base import Method, attention_of
from pruning.methods.sparsevlm import scaled_cuts

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from pruning.types import PruneContext

PUBLISHED = (2,)
"""Full layers of 32."""


@dataclass(frozen=True)
class FastV(Method):
    """Attention of the last prompt row at the last full layer, mean over heads.

    The score is that of the release's code; the text (§4.1) averages what a token receives from
    all other tokens, which is `prefill_mean`.

    Deviation: the default cut is that of every method here, 3 of 32 layers (scaled), so that
    methods are compared at one cost. The paper cuts after layer K = 2: the profile `paper` does,
    scaled to other depths, whatever cut a checkpoint asks for.

    Attributes:
        published_cut: 2 of 32 layers in full, scaled, where `cut` names no number.
    """

    name: ClassVar[str] = "fastv"
    paper: ClassVar[str] = (
        "Chen et al., An Image is Worth 1/2 Tokens After Layer 2, ECCV 2024, arXiv 2403.06764"
    )
    cost: ClassVar[str] = "n d"
    needs: ClassVar[frozenset[str]] = frozenset({"last"})
    exportable: ClassVar[bool] = True
    profiles: ClassVar[Mapping[str, Mapping[str, object]]] = {"paper": {"published_cut": True}}

    published_cut: bool = False

    def full_layers(self, num_layers: int, causal: bool) -> int:
        """The cut: its own, the published one, or that of every method.

        Raises:
            MethodError: as of every method.
        """
        if self.cut is None and self.published_cut:
            return scaled_cuts(PUBLISHED, num_layers, None)[0]
        return super().full_layers(num_layers, causal)

    def at_cut(self, cut: int) -> Method:
        """With the cut of a checkpoint, unless the published one was asked for."""
        return self if self.published_cut else super().at_cut(cut)

    def score(self, ctx: PruneContext) -> Float[Tensor, "g n"]:
        """The last row's attention."""
        return attention_of(ctx, "last")
