"""Greedy max-sum diversity: start at a pivot, then add what is least like all that were chosen.

`argmin_i sum_{j in S} cos(i, j)`. The sums of the candidates are kept, one row is added per round.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pruning.similarity import cosines
from pruning.topk import host_array, on_host

if TYPE_CHECKING:
    from jaxtyping import Float, Int64
    from torch import Tensor


def max_sum(
    features: Float[Tensor, "g n d"], pivot: Int64[Tensor, " g"], k: int
) -> Int64[Tensor, "g k"]:
    """Sorted indices of `k` tokens of every group, its pivot among them; ties by lowest index."""
    import torch

    if not on_host(features):
        return max_sum_static(cosines(features), pivot, k)
    kept = np.empty((len(pivot), k), np.int64)
    rows = zip(host_array(cosines(features)), pivot.tolist(), strict=True)
    for group, (likeness, first) in enumerate(rows):
        total, token = np.zeros(len(likeness), np.float32), first
        for turn in range(k):
            kept[group, turn] = token
            total += likeness[token]
            total[token] = np.inf
            token = total.argmin()
    kept.sort()
    return torch.from_numpy(kept)


def max_sum_static(
    likeness: Float[Tensor, "g n n"], pivot: Int64[Tensor, " g"], k: int
) -> Int64[Tensor, "g k"]:
    """Static shapes, no host synchronisation."""
    import torch

    n = likeness.shape[-1]
    chosen, token = [], pivot.unsqueeze(-1)
    total = torch.zeros_like(likeness[:, 0])
    for _ in range(k):
        chosen.append(token)
        row = likeness.gather(1, token.unsqueeze(-1).expand(-1, 1, n)).squeeze(1)
        total = (total + row).scatter(1, token, float("inf"))
        token = total.argmin(-1, keepdim=True)
    return torch.cat(chosen, -1).sort(-1).values
