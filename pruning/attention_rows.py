"""Attention that visual tokens receive, from the wanted rows only, beside a flash or SDPA decoder.

No decoder layer ever returns its attention matrix: the wanted query rows are multiplied with the
keys once more, in fp32, and reduced at once to one number per visual token.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pruning.topk import on_host

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jaxtyping import Bool, Float, Int64
    from torch import Tensor

    Rows = slice | Int64[Tensor, " r"]

THINNED = ("prefill",)
"""Row kinds that a row stride samples: the many. Last, text and action rows are read in full."""

CACHE_LOGITS = 1 << 17
"""fp32 logits that stay in a CPU core's second-level cache, 512 KiB."""


def attention_rows(
    q: Float[Tensor, "b h s dh"],
    k: Float[Tensor, "b h_kv t dh"],
    row_groups: Mapping[str, Rows],
    columns: Rows,
    *,
    scale: float | None = None,
    causal: bool = True,
    key_mask: Bool[Tensor, "b t"] | None = None,
    row_stride: int = 1,
    row_weights: Mapping[str, Float[Tensor, " r"]] | None = None,
) -> dict[str, Float[Tensor, "b n"]]:
    """Mean over heads and rows of the softmax attention probability, at the wanted columns.

    The softmax runs over all keys that a row sees; only its value at `columns` is reported, never
    renormalised. Head `i` reads key head `i // (h / h_kv)` (grouped-query attention).

    Args:
        q: queries after RoPE; row `i` is at position `i + t - s`.
        k: keys after RoPE, position 0 first.
        row_groups: query rows by kind, each averaged on its own.
        columns: keys to report, usually the visual span.
        scale: factor of the logits; `dh ** -0.5` by default.
        causal: rows see keys up to their own position only.
        key_mask: False at padding keys, which no row sees; a wanted row must see some key.
        row_stride: sample every so many rows of `prefill`; 1 is the exact mean.
        row_weights: makes the mean of a kind a weighted one, e.g. 0 for rows that are padding.

    Raises:
        ValueError: when the heads do not divide, or the stride is below 1.
    """
    if q.shape[1] % k.shape[1]:
        raise ValueError(f"{q.shape[1]} query heads cannot share {k.shape[1]} key heads")
    if row_stride < 1:
        raise ValueError(f"row_stride is {row_stride}: give 1 for every row")
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    positions = _positions(q, k) if causal else None
    means = {}
    for kind, rows in row_groups.items():
        thin = slice(None, None, row_stride if kind in THINNED else 1)
        wanted = q.detach()[:, :, rows][:, :, thin]
        bias = _bias(None if positions is None else positions[rows][thin], k, key_mask)
        weights = (row_weights or {}).get(kind)
        if weights is not None:
            weights = weights[thin].float()
            probabilities = _probabilities(wanted, k.detach(), scale, bias)
            means[kind] = weighted_mean(probabilities, weights, columns)
            continue
        large = q.shape[1] * wanted.shape[2] * k.shape[2] > CACHE_LOGITS
        column_sum = _sum_by_head if large and on_host(q) else _sum_at_once
        total = column_sum(wanted, k.detach(), scale, bias)
        means[kind] = total[:, columns] / (q.shape[1] * wanted.shape[2])
    return means


def weighted_mean(
    probabilities: Float[Tensor, "b h r t"], weights: Float[Tensor, " r"], columns: Rows
) -> Float[Tensor, "b n"]:
    """Mean over heads, and over rows by their weights, of attention that is there already."""
    # A matrix of one row: with a vector, TensorRT's parser takes the wrong axis off.
    total = (weights[None] @ probabilities).sum((1, 2))
    return total[:, columns] / (probabilities.shape[1] * weights.sum())


def _positions(q: Tensor, k: Tensor) -> Int64[Tensor, " s"]:
    import torch

    return torch.arange(k.shape[2] - q.shape[2], k.shape[2], device=q.device)


def _bias(
    positions: Int64[Tensor, " r"] | None, k: Tensor, key_mask: Bool[Tensor, "b t"] | None
) -> Float[Tensor, "#b 1 #r t"] | None:
    """Minus infinity where a row must not look, else 0; None when every row sees every key."""
    import torch

    hidden = None
    if positions is not None:
        keys = torch.arange(k.shape[2], device=k.device)
        hidden = (keys > positions.unsqueeze(-1)).unsqueeze(0)
    if key_mask is not None:
        padding = ~key_mask.unsqueeze(1)
        hidden = padding if hidden is None else hidden | padding
    if hidden is None:
        return None
    zero = torch.zeros((), device=k.device)
    return zero.masked_fill(hidden, float("-inf")).unsqueeze(1)


def _sum_at_once(
    q: Float[Tensor, "b h r dh"],
    k: Float[Tensor, "b h_kv t dh"],
    scale: float,
    bias: Float[Tensor, "#b 1 #r t"] | None,
) -> Float[Tensor, "b t"]:
    return _probabilities(q, k, scale, bias).sum((1, 2))


def _probabilities(
    q: Float[Tensor, "b h r dh"],
    k: Float[Tensor, "b h_kv t dh"],
    scale: float,
    bias: Float[Tensor, "#b 1 #r t"] | None,
) -> Float[Tensor, "b h r t"]:
    (b, h, r, dh), t = q.shape, k.shape[2]
    # Query heads that share a key head lie one after another: one product serves them all.
    queries = (q.float() * scale).reshape(b, k.shape[1], h // k.shape[1] * r, dh)
    logits = (queries @ k.float().mT).view(b, h, r, t)
    if bias is not None:
        logits += bias
    return logits.softmax(-1)


def _sum_by_head(
    q: Float[Tensor, "b h r dh"],
    k: Float[Tensor, "b h_kv t dh"],
    scale: float,
    bias: Float[Tensor, "#b 1 #r t"] | None,
) -> Float[Tensor, "b t"]:
    """On a CPU one head at a time keeps large logits in the core's cache; the product scales.

    All heads share one buffer: fresh memory of that size costs a page fault every 4 KiB.
    """
    import torch

    shared = q.shape[1] // k.shape[1]
    hidden, beta = (q.new_zeros(1, dtype=torch.float32), 0) if bias is None else (bias, 1)
    logits = q.new_empty(q.shape[2], k.shape[2], dtype=torch.float32)
    sums = []
    for batch, heads in enumerate(q.float()):
        seen = hidden if bias is None else hidden[batch % len(hidden), 0]
        keys = k[batch].float().mT
        total: Any = 0.0  # a tensor from the first head on
        for head, rows in enumerate(heads):
            torch.addmm(seen, rows, keys[head // shared], beta=beta, alpha=scale, out=logits)
            total = total + torch.softmax(logits, -1, out=logits).sum(0)
        sums.append(total)
    return torch.stack(sums)
