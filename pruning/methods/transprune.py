"""TransPrune: keep the tokens that the layers change, and those that the prompt looks at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from pruning.base import Method, Stage, attention_of
from pruning.context import part
from pruning.methods.sparsevlm import scaled_cuts
from pruning.similarity import shares
from pruning.types import Budget

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from pruning.types import PruneContext

CUTS, PROGRESS = (7, 9, 12), (1 / 7, 3 / 7, 1.0)
"""Published cuts of 32 layers, and how far each goes from all tokens to `keep`."""


@dataclass(frozen=True)
class TransPrune(Method):
    """Token transition variation plus instruction-guided attention, each a share of its sum.

    Eq. 6 at `alpha = 1/2`. Transition (eq. 1 to 3, see `pruning.transition`) adds up (eq. 4) over
    the layers from the one before the first cut on; attention is that of the text rows at the layer
    about to run (eq. 5). Cuts after layers 7, 9 and 12 of 32 (scaled), at .875, .625 and .125 of
    the tokens: the first two are as far on the way to `keep` as these. These ratios, and that both
    parts are shares, are from the release's code; numbers are those of version 2.

    Deviation: positions keep their original numbers by default, where the release numbers survivors
    anew: `prune(..., positions="repack")` does.
    """

    name: ClassVar[str] = "transprune"
    paper: ClassVar[str] = (
        "TransPrune: Token Transition Pruning for Efficient Large Vision-Language Model, "
        "CVPR 2026, arXiv 2507.20630"
    )
    needs: ClassVar[frozenset[str]] = frozenset({"transition", "text_next"})
    cost: ClassVar[str] = "3 (n d² + t n d)"
    exportable: ClassVar[bool] = True

    def stages(self, num_layers: int, causal: bool) -> tuple[Stage, ...]:
        """The three cuts; a count stands at the last one alone."""
        if not self.prunes or isinstance(self.keep, int):
            return super().stages(num_layers, causal)
        cuts, keep = scaled_cuts(CUTS, num_layers, self.cut), float(self.keep)  # type: ignore[arg-type]
        ratios = (1 - (1 - keep) * progress for progress in PROGRESS)
        return tuple(Stage(cut, Budget(ratio)) for cut, ratio in zip(cuts, ratios, strict=True))

    def score(self, ctx: PruneContext) -> Float[Tensor, "g n"]:
        """Both shares."""
        return shares(part(ctx, "transition")) + shares(attention_of(ctx, "text_next"))
