"""Greedy MAP of a determinantal point process: `k` tokens whose kernel has a large determinant.

Each round adds the token of the largest conditional variance and lowers the others' by one row of
an incremental Cholesky factor (Chen et al., arXiv 1709.05135): `n k` numbers of memory, `n k²`
products.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pruning.topk import host_array, on_host

if TYPE_CHECKING:
    from jaxtyping import Float, Float32, Int64
    from torch import Tensor

LEAST = 1e-6
"""Least conditional variance: below it the chosen tokens explain a token, and it adds nothing."""


def dpp_map(kernel: Float[Tensor, "g n n"], k: int) -> Int64[Tensor, "g k"]:
    """Sorted indices of `k` tokens of every group; ties, and what adds nothing, by lowest index."""
    import torch

    if not on_host(kernel):
        return dpp_static(kernel, k)
    return torch.from_numpy(np.sort([dpp_greedy(group, k) for group in host_array(kernel)]))


def dpp_greedy(kernel: Float32[np.ndarray, "n n"], k: int) -> list[np.int64]:
    """One group in numpy, in order of choice."""
    n = len(kernel)
    variance = np.maximum(kernel.diagonal(), np.float32(LEAST))
    factor = np.empty((k, n), np.float32)
    chosen: list[np.int64] = []
    for turn in range(k):
        token = variance.argmax()
        chosen.append(token)
        row = kernel[token] - factor[:turn, token] @ factor[:turn]
        # What the chosen ones explain already is rounding noise, which would grow round by round.
        row *= variance[token] > LEAST
        row /= np.sqrt(variance[token])
        factor[turn] = row
        variance -= row * row
        np.maximum(variance, np.float32(LEAST), out=variance)
        variance[chosen] = -np.inf
    return chosen


def dpp_static(kernel: Float[Tensor, "g n n"], k: int) -> Int64[Tensor, "g k"]:
    """All groups at once, with static shapes and without a host synchronisation."""
    import torch

    kernel = kernel.float()
    n = kernel.shape[-1]
    variance = kernel.diagonal(dim1=-2, dim2=-1).clamp_min(LEAST)
    factor, chosen = kernel[:, :0], []
    for turn in range(k):
        token = variance.argmax(-1, keepdim=True)
        chosen.append(token)
        row = kernel.gather(1, token.unsqueeze(-1).expand(-1, 1, n)).squeeze(1)
        if turn:  # an empty product is 0, but not every runtime reads an empty tensor
            column = factor.gather(2, token.unsqueeze(1).expand(-1, turn, 1))
            row = row - (column * factor).sum(1)
        left = variance.gather(1, token)
        row = row * (left > LEAST) / left.sqrt()
        factor = torch.cat([factor, row.unsqueeze(1)], 1)
        lowered = (variance - row * row).clamp_min(LEAST).where(variance > float("-inf"), variance)
        variance = lowered.scatter(1, token, float("-inf"))
    return torch.cat(chosen, -1).sort(-1).values
