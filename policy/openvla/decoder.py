"""The Llama decoder, Hugging Face parameter names, laid open where pruning needs to look.

Layers run one by one on explicit positions, so that tokens can leave between two of them while the
others keep their rotary phases. Attention goes through the fused kernel; a layer hands out its
rotated queries and keys, from which a side computation gets the few attention rows that a pruner
reads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import nn
from torch.nn import functional

from policy.openvla.attention import attend

if TYPE_CHECKING:
    from jaxtyping import Float, Int64
    from torch import Tensor

    from policy.openvla.config import TextConfig


class Rope(NamedTuple):
    """Rotary phases of a sequence: cosines and sines `[s, head_dim]`."""

    cos: Float[Tensor, "s d"]
    sin: Float[Tensor, "s d"]

    def at(self, index: Int64[Tensor, " k"]) -> Rope:
        """The phases of some of the positions."""
        return Rope(self.cos.index_select(0, index), self.sin.index_select(0, index))


class KeyValue(NamedTuple):
    """Rotated keys and values of one layer, `[b, kv_heads, s, head_dim]`."""

    k: Float[Tensor, "b kv s d"]
    v: Float[Tensor, "b kv s d"]


class LayerOutput(NamedTuple):
    """Hidden states, and what the layer's attention was computed from."""

    x: Float[Tensor, "b s d"]
    q: Float[Tensor, "b h s d"]
    cache: KeyValue


def rope_table(text: TextConfig, positions: Int64[Tensor, " s"]) -> Rope:
    """Rotary phases for the given positions, computed in float32 (two halves, Llama layout)."""
    half = torch.arange(0, text.head_dim, 2, dtype=torch.float32, device=positions.device)
    angle = positions.float()[:, None] * text.rope_theta ** (-half / text.head_dim)[None]
    angle = torch.cat([angle, angle], -1)
    return Rope(angle.cos(), angle.sin())


def rotate(x: Float[Tensor, "b h s d"], rope: Rope) -> Float[Tensor, "b h s d"]:
    """Apply rotary position phases."""
    first, second = x.chunk(2, -1)
    turned = torch.cat([-second, first], -1)
    return x * rope.cos.to(x.dtype) + turned * rope.sin.to(x.dtype)


class RMSNorm(nn.Module):
    """Root-mean-square norm; the mean square is taken in float32."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Float[Tensor, "... d"]) -> Float[Tensor, "... d"]:
        """Normalise the last axis."""
        weight = self.weight.float()
        return functional.rms_norm(x.float(), x.shape[-1:], weight, self.eps).to(x.dtype)


class SelfAttention(nn.Module):
    """Grouped-query attention with rotary phases."""

    def __init__(self, text: TextConfig) -> None:
        super().__init__()
        self.heads, self.kv_heads = text.num_attention_heads, text.num_key_value_heads
        self.head_dim = text.head_dim
        width, kv_width = text.hidden_size, text.num_key_value_heads * text.head_dim
        self.q_proj = nn.Linear(width, width, bias=False)
        self.k_proj = nn.Linear(width, kv_width, bias=False)
        self.v_proj = nn.Linear(width, kv_width, bias=False)
        self.o_proj = nn.Linear(width, width, bias=False)

    def heads_of(
        self, x: Float[Tensor, "b s d"]
    ) -> tuple[Float[Tensor, "b h s e"], Float[Tensor, "b kv s e"]]:
        """Queries and keys before rotary phases."""
        b, s, _ = x.shape
        q = self.q_proj(x).view(b, s, self.heads, -1).transpose(1, 2)
        return q, self.k_proj(x).view(b, s, self.kv_heads, -1).transpose(1, 2)

    def forward(
        self,
        x: Float[Tensor, "b s d"],
        rope: Rope,
        *,
        causal: bool,
        past: KeyValue | None,
        mask: Float[Tensor, "#b 1 #q t"] | None,
        shown: list[Tensor] | None = None,
    ) -> LayerOutput:
        """Attend over `past` and the new tokens; the cache handed back holds both."""
        b, s, _ = x.shape
        q, k = self.heads_of(x)
        q, k = rotate(q, rope), rotate(k, rope)
        v = self.v_proj(x).view(b, s, self.kv_heads, -1).transpose(1, 2)
        if past is not None:
            k, v = torch.cat([past.k, k], 2), torch.cat([past.v, v], 2)
        out = attend(q, k, v, causal=causal and s > 1, mask=mask, shown=shown)
        return LayerOutput(self.o_proj(out.transpose(1, 2).reshape(b, s, -1)), q, KeyValue(k, v))


class GatedMlp(nn.Module):
    """SwiGLU, Llama names."""

    def __init__(self, text: TextConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(text.hidden_size, text.intermediate_size, bias=False)
        self.up_proj = nn.Linear(text.hidden_size, text.intermediate_size, bias=False)
        self.down_proj = nn.Linear(text.intermediate_size, text.hidden_size, bias=False)

    def forward(self, x: Float[Tensor, "b s d"]) -> Float[Tensor, "b s d"]:
        """Gate, widen, narrow."""
        return self.down_proj(functional.silu(self.gate_proj(x)) * self.up_proj(x))


class DecoderLayer(nn.Module):
    """One pre-norm Llama layer."""

    def __init__(self, text: TextConfig) -> None:
        super().__init__()
        self.self_attn = SelfAttention(text)
        self.mlp = GatedMlp(text)
        self.input_layernorm = RMSNorm(text.hidden_size, text.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(text.hidden_size, text.rms_norm_eps)

    def forward(
        self,
        x: Float[Tensor, "b s d"],
        rope: Rope,
        *,
        causal: bool,
        past: KeyValue | None = None,
        mask: Float[Tensor, "#b 1 #q t"] | None = None,
        trace: list[tuple[Tensor, Tensor]] | None = None,
        shown: list[Tensor] | None = None,
    ) -> LayerOutput:
        """Run the layer; queries and keys come back for side computations.

        A `mask` is added to the attention logits, in place of `causal`. A `trace` gets input and
        output of both modules, after their norm and before the residual. `shown` gets the attention
        probabilities: for graphs, whose runtime makes that matrix anyway.
        """
        normed = self.input_layernorm(x)
        attention = self.self_attn(normed, rope, causal=causal, past=past, mask=mask, shown=shown)
        x = x + attention.x
        wide = self.post_attention_layernorm(x)
        change = self.mlp(wide)
        if trace is not None:
            trace += [(normed, attention.x), (wide, change)]
        return attention._replace(x=x + change)


class LlamaModel(nn.Module):
    """Embeddings, layers, final norm."""

    def __init__(self, text: TextConfig) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(text.vocab_size, text.hidden_size)
        self.layers = nn.ModuleList(DecoderLayer(text) for _ in range(text.num_hidden_layers))
        self.norm = RMSNorm(text.hidden_size, text.rms_norm_eps)


class LlamaDecoder(nn.Module):
    """`language_model.*` of a checkpoint: the model and its untied output head."""

    def __init__(self, text: TextConfig) -> None:
        super().__init__()
        self.model = LlamaModel(text)
        self.lm_head = nn.Linear(text.hidden_size, text.vocab_size, bias=False)

    def logits(self, x: Float[Tensor, "b s d"]) -> Float[Tensor, "b s vocab"]:
        """Token scores of hidden states that have not been normalised yet."""
        return self.lm_head(self.model.norm(x))
