"""FastV: keep what the last prompt token looks at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from pruning.base import Method, attention_of

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from pruning.types import PruneContext


@dataclass(frozen=True)
class FastV(Method):
    """Attention of the last prompt row at the last full layer, mean over heads."""

    name: ClassVar[str] = "fastv"
    paper: ClassVar[str] = (
        "Chen et al., An Image is Worth 1/2 Tokens After Layer 2, ECCV 2024, arXiv 2403.06764"
    )
    cost: ClassVar[str] = "n d"
    needs: ClassVar[frozenset[str]] = frozenset({"last"})
    exportable: ClassVar[bool] = True

    def score(self, ctx: PruneContext) -> Float[Tensor, "g n"]:
        """The last row's attention."""
        return attention_of(ctx, "last")
