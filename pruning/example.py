"""A random context in which nothing is missing: for benchmarks, exports and tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pruning.types import Budget, Heads, PruneContext

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import torch
    from torch import Tensor

WORDS, HEADS, KEY_HEADS = 12, 4, 2
KINDS = (
    "last", "prefill", "text", "action", "text_next", "text_qk", "tower_mean", "tower_cls",
)  # fmt: skip


def example_context(
    shape: tuple[int, int, int],
    keep: float | int = 0.25,
    *,
    seed: int = 0,
    dtype: torch.dtype | None = None,
) -> PruneContext:
    """Every field that a method may declare, drawn from a seed; the groups are views of one sample.

    Args:
        shape: groups, tokens, width.
        keep: a budget.
        seed: of the draw, and of the context.
        dtype: of features and attention; fp32 by default.
    """
    import torch

    draw = torch.Generator().manual_seed(seed)
    groups, n, width = shape

    def normal(*size: int) -> Tensor:
        return torch.randn(*size, generator=draw).to(dtype)

    def uniform(*size: int) -> Tensor:
        return torch.rand(*size, generator=draw).to(dtype)

    features = normal(groups, n, width)
    return PruneContext(
        features=features,
        keep=Budget(keep).tokens(n),
        attention={kind: uniform(groups, n) / n for kind in KINDS},
        history=uniform(groups, n).float(),
        seed=seed,
        text_features=normal(1, WORDS, width).expand(groups, -1, -1),
        text_rows=uniform(groups, WORDS, n) / n,
        text_hidden=normal(1, WORDS, width).expand(groups, -1, -1),
        text_mass=uniform(groups),
        hidden=normal(groups, n, width),
        tower_features=normal(groups, n, width),
        tower_keys=normal(groups, n, 8),
        transition=uniform(groups, n),
        heads=Heads(normal(groups, HEADS, WORDS, 8), normal(groups, KEY_HEADS, n, 8)),
        pixels=uniform(groups, n, 12),
        project=torch.tanh,
        output=_answer(features),
        views=groups,
    )


def _answer(features: Tensor) -> Callable[[Sequence[Tensor]], Tensor]:
    """A model's answer for tests: the norm of what lives decides, token by token."""

    def answer(kept: Sequence[Tensor]) -> Tensor:
        import torch

        lengths = [
            row[alive].float().square().sum(0) for row, alive in zip(features, kept, strict=True)
        ]
        return torch.stack(lengths).sum(0)

    return answer
