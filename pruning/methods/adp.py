"""ADP: keep what the prompt's queries point at, before any layer has run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from pruning.base import Method, attention_of

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from pruning.types import PruneContext


@dataclass(frozen=True)
class ADP(Method):
    """Text-to-vision products of the first layer, `mean over heads and text rows of q.k / sqrt(d)`.

    Norm and projections are those of the layer about to run; no rotary phases, no softmax (after
    the release's code).

    Not taken over: the gate on end-effector motion, whose evaluation is not published; and the
    budget of .4 for the main and .6 for the wrist camera, which is
    `quota:weights=0.4-0.6+adp` here.
    """

    name: ClassVar[str] = "adp"
    paper: ClassVar[str] = (
        "Action-aware Dynamic Pruning for Efficient Vision-Language-Action Manipulation, "
        "ICLR 2026, arXiv 2509.22093"
    )
    needs: ClassVar[frozenset[str]] = frozenset({"text_qk"})
    cost: ClassVar[str] = "n d² + t d²"
    exportable: ClassVar[bool] = True
    before_decoder: ClassVar[bool] = True

    def score(self, ctx: PruneContext) -> Float[Tensor, "g n"]:
        """The mean product."""
        return attention_of(ctx, "text_qk")
