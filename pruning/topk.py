"""Top-k that gives the same set everywhere: fp32, ties to the lowest index, NaN refused."""

from __future__ import annotations

from math import isnan
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import Bool, Float, Int64
    from torch import Tensor


class ScoreError(ValueError):
    """Scores that cannot be ranked: a NaN among them, or the wrong shape."""


def on_host(tensor: Tensor) -> bool:
    """True when plain numpy may read `tensor`: on the CPU, and not being traced for an export."""
    return tensor.is_cpu and not traced(tensor)


def traced(tensor: Tensor) -> bool:
    """True while a program or a graph is made of what is computed."""
    import torch

    if type(tensor) is not torch.Tensor:  # a fake one has no values
        return True
    return torch.compiler.is_compiling() or torch.onnx.is_in_onnx_export()


def host_array(tensor: Tensor) -> np.ndarray:
    """The fp32 values of a CPU tensor, without a copy where it already is fp32."""
    return tensor.detach().float().numpy()


def top_k(scores: Float[Tensor, "g n"], k: int) -> Int64[Tensor, "g k"]:
    """Indices of the `k` largest scores of every group, in ascending order; see `top_mask`.

    Raises:
        ScoreError: as `top_mask`.
    """
    if not on_host(scores):
        return _ranked(scores, k).sort(dim=-1).values
    return top_mask(scores, k).nonzero()[:, 1].view(-1, k)


def top_mask(scores: Float[Tensor, "g n"], k: int) -> Bool[Tensor, "g n"]:
    """True at the `k` largest scores of every group.

    Scores are compared in fp32 and equal ones go to the lowest index, so a set never depends on
    which kernel sorted it. An accelerator is never waited for: there a NaN ranks above every
    number.

    Raises:
        ScoreError: on a NaN (CPU only), or when `scores` is not `[g, n]` with `n >= k >= 1`.
    """
    if on_host(scores) and scores.ndim == 2 and 1 <= k <= scores.shape[1]:
        values = no_nan(scores.float())
        mask = values >= values.topk(k, dim=-1).values[:, -1:]
        if mask.sum(-1).tolist() == [k] * len(mask):  # no tie at the border: nothing to sort
            return mask
    return membership(_ranked(scores, k), scores.shape[-1])


def _ranked(scores: Tensor, k: int) -> Int64[Tensor, "g k"]:
    if scores.ndim != 2 or not 1 <= k <= scores.shape[1]:
        raise ScoreError(f"scores {tuple(scores.shape)} cannot give {k} of each row: pass [g, n]")
    import torch

    if torch.onnx.is_in_onnx_export():  # ONNX's TopK gives ties to the lowest index by itself
        return scores.float().topk(k, dim=-1).indices
    return scores.float().sort(dim=-1, descending=True, stable=True).indices[:, :k]


def no_nan(scores: Float[Tensor, "g n"]) -> Float[Tensor, "g n"]:
    """The scores, refused where one is NaN; an accelerator is not waited for.

    Raises:
        ScoreError: on a NaN (CPU only).
    """
    # One pass where there is none; opposite infinities sum to NaN, too.
    if not on_host(scores) or not isnan(scores.float().sum().item()):
        return scores
    for group, token in scores.isnan().nonzero()[:1].tolist():
        raise ScoreError(f"score of token {token} in group {group} is NaN: the model overflowed")
    return scores


def membership(indices: Int64[Tensor, "g k"], n: int) -> Bool[Tensor, "g n"]:
    """True at every listed index, one row per group."""
    import torch

    mask = torch.zeros(indices.shape[0], n, dtype=torch.bool, device=indices.device)
    return mask.scatter_(1, indices, True)
