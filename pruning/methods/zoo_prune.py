"""ZOO-Prune: keep tokens to which the projector is sensitive, and that differ from one another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from pruning.base import Method, MethodError, everything, keeps_all
from pruning.context import part
from pruning.farthest import farthest
from pruning.similarity import finite, spread
from pruning.topk import no_nan
from pruning.types import Selection

if TYPE_CHECKING:
    from collections.abc import Callable

    from jaxtyping import Float
    from torch import Tensor

    from pruning.types import PruneContext

CONSTANT = 1e-3
"""Relative spread of sensitivities below which they say nothing."""


@dataclass(frozen=True)
class ZOOPrune(Method):
    """Zeroth-order sensitivity of the projector times diversity of its outputs.

    `s_i = mean_j |f(x_i + h u_j) - f(x_i - h u_j)| / 2h` over random unit directions that all
    tokens share, moved to 0..1; then farthest-first choice weighted by `s` (after the release's
    code).

    What it costs: `2 * directions` passes of every token through the projector. For OpenVLA (7B)
    and the published 64 directions that is 2.3 T multiply-accumulates, more than the 1.9 T of the
    whole prefill; with 4 directions, 0.14 T. A linear projector is refused: all its sensitivities
    are equal, so that they choose nothing.

    Attributes:
        directions: random directions.
        step: length of a step along them.
    """

    name: ClassVar[str] = "zoo_prune"
    paper: ClassVar[str] = (
        "ZOO-Prune: Training-Free Token Pruning via Zeroth-Order Gradient Estimation in "
        "Vision-Language Models, CVPR 2026, arXiv 2509.24837"
    )
    needs: ClassVar[frozenset[str]] = frozenset({"features", "tower_features", "project"})
    cost: ClassVar[str] = "2 m projectors + n² d"
    before_decoder: ClassVar[bool] = True

    directions: int = 64
    step: float = 0.01

    def __post_init__(self) -> None:
        """Check the fields."""
        super().__post_init__()
        if self.directions < 1 or not self.step > 0:
            raise MethodError("directions must be at least 1 and step above 0")

    def select(self, ctx: PruneContext) -> Selection:
        """The weighted choice.

        Raises:
            MethodError: when the projector is linear.
            ScoreError: when a token or its sensitivity is not finite.
        """
        if keeps_all(ctx):
            return everything(ctx)
        tokens = finite(part(ctx, "tower_features"), "tower features")
        slopes = sensitivity(part(ctx, "project"), tokens, self.directions, self.step, ctx.seed)
        s = no_nan(slopes)
        if bool((s.amax() - s.amin()) <= CONSTANT * s.amax()):
            raise MethodError(
                "every token has the same sensitivity, as with a linear projector: zoo_prune "
                "would choose by diversity alone, so use divprune"
            )
        return Selection(farthest(ctx.features, spread(s), ctx.keep))


def sensitivity(
    project: Callable[[Tensor], Tensor],
    tokens: Float[Tensor, "g n w"],
    directions: int,
    step: float,
    seed: int,
) -> Float[Tensor, "g n"]:
    """Mean length of the projector's central difference; same seed, same directions everywhere."""
    import torch

    draw = torch.Generator().manual_seed(seed)
    total = tokens.new_zeros(tokens.shape[:2], dtype=torch.float32)
    for _ in range(directions):
        way = torch.randn(tokens.shape[-1], generator=draw)
        move = (way / way.norm() * step).to(tokens.device, tokens.dtype)
        change = project(tokens + move).float() - project(tokens - move).float()
        total = total + change.norm(dim=-1)
    return total / (2 * step * directions)
