"""Top-k that gives the same set everywhere: fp32, ties to the lowest index, NaN refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int64
    from torch import Tensor


class ScoreError(ValueError):
    """Scores that cannot be ranked: a NaN among them, or the wrong shape."""


def on_host(tensor: Tensor) -> bool:
    """True when plain numpy may read `tensor`: on the CPU, and not being traced for an export."""
    import torch

    if not tensor.is_cpu or type(tensor) is not torch.Tensor:  # a fake one has no values
        return False
    return not (torch.compiler.is_compiling() or torch.onnx.is_in_onnx_export())


def host_array(tensor: Tensor) -> np.ndarray:
    """The fp32 values of a CPU tensor, without a copy where it already is fp32."""
    return tensor.detach().float().numpy()


def top_k(scores: Float[Tensor, "g n"], k: int) -> Int64[Tensor, "g k"]:
    """Indices of the `k` largest scores of every group, in ascending order of index.

    Scores are compared in fp32 and equal ones go to the lowest index, so a set never depends on
    which kernel sorted it. On the CPU this runs in numpy, three times faster than torch's stable
    sort at 2 x 144. An accelerator is never waited for: there a NaN ranks above every number.

    Raises:
        ScoreError: on a NaN (CPU only), or when `scores` is not `[g, n]` with `n >= k >= 1`.
    """
    import torch

    if scores.ndim != 2 or not 1 <= k <= scores.shape[1]:
        raise ScoreError(f"scores {tuple(scores.shape)} cannot give {k} of each row: pass [g, n]")
    if not on_host(scores):
        ranked = torch.sort(scores.float(), dim=-1, descending=True, stable=True).indices
        return ranked[:, :k].sort(dim=-1).values
    values = host_array(scores)
    if np.isnan(values.sum()) and np.isnan(values).any():  # one pass where none is
        group, token = np.argwhere(np.isnan(values))[0].tolist()
        raise ScoreError(f"score of token {token} in group {group} is NaN: the model overflowed")
    order = np.argsort(-values, axis=-1, kind="stable")[:, :k]
    order.sort(axis=-1)
    return torch.from_numpy(order)


def membership(indices: Int64[Tensor, "g k"], n: int) -> Bool[Tensor, "g n"]:
    """True at every listed index, one row per group."""
    import torch

    mask = torch.zeros(indices.shape[0], n, dtype=torch.bool, device=indices.device)
    return mask.scatter_(1, indices, True)
