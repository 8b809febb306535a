"""One attention call for towers and decoder: scaled dot products through torch's fused kernel.

On CPUs the backward pass of the fused kernel in bfloat16 is about twice as slow as two matmuls and
a softmax; training switches to the plain form, which computes the same function.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jaxtyping import Float
    from torch import Tensor

_plain = False


@contextlib.contextmanager
def plain_attention() -> Iterator[None]:
    """Within this context attention is written out; meant for training on a CPU."""
    global _plain
    before, _plain = _plain, True
    try:
        yield
    finally:
        _plain = before


def attend(
    q: Float[Tensor, "b h q d"],
    k: Float[Tensor, "b kv s d"],
    v: Float[Tensor, "b kv s d"],
    *,
    causal: bool = False,
    mask: Float[Tensor, "#b 1 #q s"] | None = None,
    shown: list[Float[Tensor, "b h q s"]] | None = None,
) -> Float[Tensor, "b h q d"]:
    """Attention of `q` over `k`, `v`; `causal` needs as many queries as keys.

    A `mask` is added to the logits (minus infinity hides a key) and takes the place of `causal`.
    With `shown`, attention is written out and its probabilities are appended.

    Grouped keys (`kv < h`) serve the query heads `g * h / kv ... (g + 1) * h / kv - 1`, the layout
    of Hugging Face's Llama.
    """
    if _plain or shown is not None:
        return _plain_attend(q, k, v, causal, mask, shown)
    grouped = q.shape[1] != k.shape[1]
    return functional.scaled_dot_product_attention(
        q, k, v, attn_mask=mask, is_causal=causal and mask is None, enable_gqa=grouped
    )


def _plain_attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    causal: bool,
    mask: Tensor | None,
    shown: list[Tensor] | None,
) -> Tensor:
    if q.shape[1] != k.shape[1]:
        times = q.shape[1] // k.shape[1]
        k, v = k.repeat_interleave(times, 1), v.repeat_interleave(times, 1)
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    if mask is not None:
        scores = scores + mask
    elif causal:
        future = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).triu(1)
        scores = scores.masked_fill(future, float("-inf"))
    probabilities = scores.softmax(-1)
    if shown is not None:
        shown.append(probabilities)
    return probabilities @ v
