"""Farthest-first choice with weights: what is both worth much and unlike all that were chosen.

Start at the largest weight, then add `argmax_i w_i min_{j in S} (1 - cos(i, j))`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pruning.similarity import cosines
from pruning.topk import host_array, on_host

if TYPE_CHECKING:
    from jaxtyping import Float, Int64
    from torch import Tensor


def farthest(
    features: Float[Tensor, "g n d"], weights: Float[Tensor, "g n"], k: int
) -> Int64[Tensor, "g k"]:
    """Sorted indices of `k` tokens of every group; weights at least 0; ties by lowest index."""
    import torch

    distance = (1 - cosines(features)).clamp_min(0)
    if not on_host(features):
        return farthest_static(distance, weights, k)
    kept = np.empty((len(features), k), np.int64)
    for group, (rows, worth) in enumerate(
        zip(host_array(distance), host_array(weights), strict=True)
    ):
        value, token = np.full(len(worth), np.inf, np.float32), int(worth.argmax())
        for turn in range(k):
            kept[group, turn] = token
            np.minimum(value, rows[token], out=value)
            value[token] = -1.0  # below what any other token can have
            token = int(np.where(value < 0, -1, value * worth).argmax())
    kept.sort()
    return torch.from_numpy(kept)


def farthest_static(
    distance: Float[Tensor, "g n n"], weights: Float[Tensor, "g n"], k: int
) -> Int64[Tensor, "g k"]:
    """Static shapes, no host synchronisation."""
    import torch

    n, weights = distance.shape[-1], weights.float()
    token = weights.argmax(-1, keepdim=True)
    value, chosen = torch.full_like(weights, float("inf")), []
    for _ in range(k):
        chosen.append(token)
        row = distance.gather(1, token.unsqueeze(-1).expand(-1, 1, n)).squeeze(1)
        value = torch.minimum(value, row).scatter(1, token, -1.0)
        token = (value * weights).masked_fill(value < 0, -1.0).argmax(-1, keepdim=True)
    return torch.cat(chosen, -1).sort(-1).values
