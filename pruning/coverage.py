"""Greedy maximum coverage: of `n` columns the `k` that together reach highest in every row.

Facility location: `f(S) = sum_rows max_{j in S} w[row, j]`, weights at least 0. Greedy adds the
column of the largest gain `sum_rows max(0, w[row, j] - best[row])`.

Gains only fall as columns are added, in floating point too (a sum in a fixed order is monotone in
each term). So a column whose gain of an earlier round is below the best of this one need not be
looked at: the lazy form chooses what the full one would, with a few gains per round, not `n`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pruning.jit import compiled
from pruning.topk import host_array, on_host

if TYPE_CHECKING:
    from jaxtyping import Float, Float32, Int64
    from torch import Tensor


def max_coverage(weights: Float[Tensor, "g r n"], k: int) -> Int64[Tensor, "g k"]:
    """Sorted indices of `k` columns of every group; ties go to the lowest index.

    On the CPU the lazy form runs, compiled where numba is installed; elsewhere all gains are
    computed in every round, with static shapes and without a host synchronisation.
    """
    import torch

    if not on_host(weights):
        return coverage_static(weights, k)
    columns = np.ascontiguousarray(host_array(weights).swapaxes(1, 2))
    choose = compiled(coverage_loops, reorder=True) or coverage_lazy
    return torch.from_numpy(np.sort(np.stack([choose(group, k) for group in columns])))


def coverage_lazy(columns: Float32[np.ndarray, "n r"], k: int) -> Int64[np.ndarray, " k"]:
    """Lazy greedy coverage of one group, columns as rows, in order of choice."""
    n, rows = columns.shape
    best = np.zeros(rows, np.float32)
    bound, checked = np.full(n, np.inf, np.float32), np.full(n, -1, np.int64)
    chosen = np.empty(k, np.int64)
    for turn in range(k):
        token = bound.argmax()
        while checked[token] != turn:
            bound[token] = np.maximum(columns[token] - best, np.float32(0)).sum()
            checked[token] = turn
            token = bound.argmax()
        chosen[turn] = token
        best = np.maximum(best, columns[token])
        bound[token] = -np.inf
    return chosen


def coverage_loops(columns: Float32[np.ndarray, "n r"], k: int) -> Int64[np.ndarray, " k"]:
    """`coverage_lazy` spelt out for the compiler: 20 to 50 times faster, unusable without it."""
    n, rows = columns.shape
    best, bound = np.zeros(rows, np.float32), np.empty(n, np.float32)
    chosen = np.empty(k, np.int64)

    def gain(column: Any) -> Any:
        total = np.float32(0)
        for row in range(rows):
            total += max(columns[column, row] - best[row], np.float32(0))
        return total

    for turn in range(k):
        token, top = 0, np.float32(-np.inf)
        if turn:
            for other in range(1, n):
                token = other if bound[other] > bound[token] else token
            top = bound[token] = gain(token)
        for other in range(n):
            if turn == 0 or bound[other] > top or (bound[other] == top and other < token):
                bound[other] = gain(other)
                if bound[other] > top or (bound[other] == top and other < token):
                    top, token = bound[other], other
        chosen[turn] = token
        bound[token] = -np.inf
        for row in range(rows):
            best[row] = max(best[row], columns[token, row])
    return chosen


def coverage_static(weights: Float[Tensor, "g r n"], k: int) -> Int64[Tensor, "g k"]:
    """All gains in every round: for accelerators and export; see `max_coverage`."""
    import torch

    weights = weights.float()
    rows = weights.shape[1]
    best = torch.zeros_like(weights[:, :, :1])
    taken = torch.zeros_like(weights[:, 0])
    chosen = []
    for _ in range(k):
        gain = (weights - best).clamp_min(0).sum(1)
        token = (gain + taken).argmax(-1, keepdim=True)
        chosen.append(token)
        taken = taken.scatter(1, token, float("-inf"))
        best = torch.maximum(best, weights.gather(2, token.unsqueeze(1).expand(-1, rows, 1)))
    return torch.cat(chosen, -1).sort(-1).values
