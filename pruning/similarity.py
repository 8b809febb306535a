"""Cosine similarities and what is built on them, in fp32."""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING

from pruning.topk import ScoreError, host_array, on_host

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int64
    from torch import Tensor

TINY = 1e-12
"""Least norm, so that an all-zero token has cosine 0 with every other one, not NaN."""


def unit(features: Float[Tensor, "... d"]) -> Float[Tensor, "... d"]:
    """Every token at length 1.

    Raises:
        ScoreError: on a component that is not finite (CPU only).
    """
    values = finite(features).float()
    return values * _inverse(values)


def finite(features: Float[Tensor, "g *h n d"], what: str = "features") -> Tensor:
    """The features, refused where one is not finite; an accelerator is not waited for.

    Args:
        features: of every token, heads apart where there are some.
        what: the word for them in the sentence that refuses.

    Raises:
        ScoreError: on a NaN or an infinity (CPU only).
    """
    if not on_host(features) or isfinite(features.float().sum().item()):
        return features
    for group, *_, token in (~features.isfinite()).any(-1).nonzero()[:1].tolist():
        raise ScoreError(
            f"{what} of token {token} in group {group} are not finite (NaN or overflow): run the "
            "model in float32 or bfloat16"
        )
    return features


def cosines(
    features: Float[Tensor, "g n d"], others: Float[Tensor, "g m d"] | None = None
) -> Float[Tensor, "g n m"]:
    """Cosine of every token with every other one, or with those of a second set.

    Norms are folded in after the product. Among themselves the tokens of a CPU context are
    multiplied by BLAS's symmetric product, half the work and exactly symmetric.
    """
    import torch

    first = finite(features).float()
    if others is not None:
        return _inverse(first) * (first @ finite(others).float().mT) * _inverse(others).mT
    if on_host(first):
        gram = torch.stack([torch.from_numpy(x @ x.T) for x in host_array(first)])
    else:
        gram = first @ first.mT
    norms = gram.diagonal(dim1=-2, dim2=-1).sqrt().clamp_min(TINY).reciprocal()
    return gram.mul_(norms.unsqueeze(-1) * norms.unsqueeze(-2))


def _inverse(features: Float[Tensor, "g n d"]) -> Float[Tensor, "g n 1"]:
    return features.float().norm(dim=-1, keepdim=True).clamp_min(TINY).reciprocal()


def spread(scores: Float[Tensor, "g n"]) -> Float[Tensor, "g n"]:
    """Scores moved linearly to 0..1; equal ones become 1, so that they still multiply."""
    low, high = scores.amin(-1, keepdim=True), scores.amax(-1, keepdim=True)
    width = high - low
    even = width <= 0
    return ((scores - low) / width.masked_fill(even, 1.0)).masked_fill(even, 1.0)


def shares(scores: Float[Tensor, "g n"]) -> Float[Tensor, "g n"]:
    """Non-negative scores as shares that sum to 1; an even share each when all are 0."""
    total = scores.float().sum(-1, keepdim=True)
    even = scores.float() * 0 + 1 / scores.shape[-1]
    return (scores.float() / total.clamp_min(TINY)).where(total > TINY, even)


def merge_map(
    kept: Int64[Tensor, "g k"],
    weights: Float[Tensor, "g n"],
    nearness: Float[Tensor, "g n n"],
    takers: Bool[Tensor, "g k"] | None = None,
    givers: Bool[Tensor, "g n"] | None = None,
) -> Float[Tensor, "g k n"]:
    """Each token that leaves goes to the nearest kept one; rows are weighted means, summing to 1.

    Args:
        kept: tokens that live, sorted.
        weights: what each token weighs in a mean, at least 0; kept ones too.
        nearness: similarity of every pair.
        takers: kept tokens that take others in; all by default.
        givers: tokens that are merged where they leave; all by default.
    """
    import torch
    from torch.nn.functional import one_hot

    n = weights.shape[-1]
    alive = one_hot(kept, n).to(weights.dtype)
    near = nearness.gather(1, kept.unsqueeze(-1).expand(-1, -1, n))
    if takers is not None:
        near = near.masked_fill(~takers.unsqueeze(-1), float("-inf"))
    home = one_hot(near.argmax(1), kept.shape[1]).to(weights.dtype).mT
    leaving = 1 - alive.amax(1, keepdim=True)
    if givers is not None:
        leaving = leaving * givers.unsqueeze(1).to(weights.dtype)
    given = home * leaving
    # A kept token of weight 0 still counts for itself where it takes in nothing of weight.
    floor = torch.finfo(weights.dtype).tiny
    mixed = (given + alive) * weights.clamp_min(floor).unsqueeze(1)
    return mixed / mixed.sum(-1, keepdim=True)
