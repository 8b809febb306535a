"""Queries and keys of one layer, taken beside it or computed ahead of it, and their rotation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch

if TYPE_CHECKING:
    from jaxtyping import Float, Int64
    from torch import Tensor


class Phases(NamedTuple):
    """Rotary cosines and sines of the whole sequence, `[#b, s, e]`, M-RoPE in some versions 3 x."""

    cos: Float[Tensor, "*axes #b s e"]
    sin: Float[Tensor, "*axes #b s e"]

    def of(self, row: int, slots: Int64[Tensor, " l"], attention: Any) -> Phases:
        """The phases `[l, e]` of some slots of one row."""
        return Phases(*(_one(part, row, slots, attention) for part in self))


def _one(part: Tensor, row: int, slots: Tensor, attention: Any) -> Float[Tensor, "l e"]:
    batch = part.shape[-3]
    chosen = part.select(-3, row if batch > 1 else 0).index_select(-2, slots)
    if chosen.ndim == 2:
        return chosen
    # Three axes (time, height, width) whose sections of channels the attention puts together.
    sections = attention.rope_scaling["mrope_section"] * 2
    split = chosen.split(sections, dim=-1)
    return torch.cat([block[at % 3] for at, block in enumerate(split)], -1)


def rotate(x: Float[Tensor, "h l e"], phases: Phases) -> Float[Tensor, "h l e"]:
    """Apply rotary phases (two halves, as all supported decoders lay channels out)."""
    first, second = x.chunk(2, -1)
    turned = torch.cat([-second, first], -1)
    return x * phases.cos.to(x.dtype) + turned * phases.sin.to(x.dtype)


def by_head(output: Tensor, attention: Any) -> Float[Tensor, "b h s e"]:
    """A tap's output, heads apart."""
    b, s = output.shape[:2]
    return output.reshape(b, s, -1, attention.head_dim).transpose(1, 2)


def scaled(q: Tensor, attention: Any) -> Tensor:
    """Queries for which `q.k / sqrt(e)` is the layer's own logit, where its scale is another."""
    factor = attention.scaling * attention.head_dim**0.5
    return q if abs(factor - 1) < 1e-6 else q * factor


def ahead(
    layer: Any, attention: Any, x: Float[Tensor, "1 l d"]
) -> tuple[Float[Tensor, "1 h l e"], Float[Tensor, "1 kv l e"]]:
    """Queries and keys, before rotation, of a layer that has not run yet."""
    normed = layer.input_layernorm(x)
    q = by_head(attention.q_proj(normed), attention)
    k = by_head(attention.k_proj(normed), attention)
    if hasattr(attention, "q_norm"):
        q, k = attention.q_norm(q), attention.k_norm(k)
    return q, k
