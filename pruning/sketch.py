"""Embeddings folded to fewer dimensions, so that comparing all pairs costs less.

A count sketch (Charikar et al., 2002): component `i` goes to place `i mod width` with a fixed sign,
and what meets there is added. Inner products keep their expectation; a cosine is off by about
`sqrt((1 + cos²) / width)`. One pass over the embeddings, where a dense random projection would cost
as much as the product that it saves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pruning.base import MethodError
from pruning.jit import compiled
from pruning.topk import host_array, on_host

if TYPE_CHECKING:
    from jaxtyping import Float, Float32
    from torch import Tensor


_MOST = 16384
"""Widest embeddings."""


def check_width(width: int) -> None:
    """Refuse a width that is none.

    Raises:
        MethodError: unless it is a whole number from 0 on.
    """
    if isinstance(width, bool) or not isinstance(width, int) or width < 0:
        raise MethodError(f"sketch is {width!r}: give a number of dimensions, or 0 for no folding")


def sketch(features: Float[Tensor, "g n d"], width: int) -> Float[Tensor, "g n w"]:
    """The embeddings in at most `width` dimensions, in fp32; as they are where they fit, or at 0.

    The signs depend on nothing, so equal embeddings have equal sketches everywhere.

    Raises:
        MethodError: for embeddings that are wider than any known model's.
    """
    import torch
    from torch.nn.functional import pad

    dims = features.shape[-1]
    if width == 0 or width >= dims:
        return features
    if dims > _MOST:
        raise MethodError(f"embeddings have {dims} dimensions: sketch folds up to {_MOST}")
    loops = compiled(_fold_loops) if on_host(features) else None
    if loops is not None:
        return torch.from_numpy(loops(np.ascontiguousarray(host_array(features)), _SIGNS, width))
    signs = torch.from_numpy(_SIGNS).to(features.device)
    folded = torch.zeros(*features.shape[:-1], width, device=features.device)
    for start in range(0, dims, width):
        part = features[..., start : start + width].float()
        sign = signs[start : start + part.shape[-1]]
        short = width - part.shape[-1]
        if short:
            part, sign = pad(part, (0, short)), pad(sign, (0, short))
        folded = torch.addcmul(folded, part, sign)
    return folded


def _fold_loops(
    features: Float32[np.ndarray, "g n d"], signs: Float32[np.ndarray, " most"], width: int
) -> Float32[np.ndarray, "g n w"]:
    """One pass over the embeddings; sums in the same order as in torch, so the same bits."""
    groups, count, dims = features.shape
    folded = np.zeros((groups, count, width), np.float32)
    for group in range(groups):
        for token in range(count):
            places, row = folded[group, token], features[group, token]
            for start in range(0, dims, width):
                # Slices, whose ends need no test within the loop: it becomes vector code.
                part, sign = row[start : start + width], signs[start : start + width]
                for place in range(len(part)):
                    places[place] += sign[place] * part[place]
    return folded


def _random_signs(count: int) -> Float32[np.ndarray, " d"]:
    """+1 or -1 by the highest bit of the SplitMix64 sequence: the same on every machine."""
    x = (np.arange(count, dtype=np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.where((x ^ (x >> np.uint64(31))) >> np.uint64(63), 1, -1).astype(np.float32)


# Made once: a traced selection finds them as a constant.
_SIGNS = _random_signs(_MOST)
