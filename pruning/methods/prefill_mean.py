"""Prefill mean: keep what the whole prompt looks at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from pruning.base import Method, attention_of

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from pruning.types import PruneContext


@dataclass(frozen=True)
class PrefillMean(Method):
    """Attention of all prompt and visual rows at the last full layer, mean over heads and rows.

    The semantic half of VLA-Pruner on its own, its ablation without action attention (after that
    paper's text).

    Attributes:
        row_stride: average every so many rows only; 1 is the exact mean.
    """

    name: ClassVar[str] = "prefill_mean"
    paper: ClassVar[str] = "VLA-Pruner's vision-language score alone, arXiv 2511.16449"
    cost: ClassVar[str] = "(n + t) n d"
    needs: ClassVar[frozenset[str]] = frozenset({"prefill"})
    exportable: ClassVar[bool] = True

    row_stride: int = 1

    def score(self, ctx: PruneContext) -> Float[Tensor, "g n"]:
        """The mean row's attention."""
        return attention_of(ctx, "prefill")
