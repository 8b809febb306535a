"""Small products of queries and keys, for scores that are no mean over rows.

Head `i` reads key head `i // (h / h_kv)` (grouped-query attention), everything in fp32.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jaxtyping import Bool, Float
    from torch import Tensor


def products(
    q: Float[Tensor, "b h r e"], k: Float[Tensor, "b kv n e"]
) -> Float[Tensor, "b kv s r n"]:
    """`q . k / sqrt(e)` of every head, heads that share keys side by side."""
    queries = (q.float() * q.shape[-1] ** -0.5).unflatten(1, (k.shape[1], -1))
    return queries @ k.float().mT.unsqueeze(2)


def mean_product(q: Float[Tensor, "b h r e"], k: Float[Tensor, "b kv n e"]) -> Float[Tensor, "b n"]:
    """Mean over heads and rows of `q . k / sqrt(e)`: rows and shared heads first, then products."""
    queries = q.float().mean(2).unflatten(1, (k.shape[1], -1)).mean(2) * q.shape[-1] ** -0.5
    return (k.float() @ queries.unsqueeze(-1)).squeeze(-1).mean(1)


def row_attention(
    q: Float[Tensor, "b h r e"],
    k: Float[Tensor, "b kv t e"],
    columns: slice,
    hidden: Bool[Tensor, "r t"] | None = None,
) -> Float[Tensor, "b r n"]:
    """Softmax attention of every given row, mean over heads, at the wanted columns.

    Args:
        q: the wanted rows alone.
        k: all keys.
        columns: keys to report.
        hidden: True where a row must not look.
    """
    logits = products(q, k)
    if hidden is not None:
        logits = logits.masked_fill(hidden, float("-inf"))
    return logits.softmax(-1)[..., columns].mean((1, 2))


def soft_vote(
    q: Float[Tensor, "b h e"], k: Float[Tensor, "b kv n e"], scale: float = 1.0
) -> Float[Tensor, "b n"]:
    """Sum over heads of the softmax over the keys: no head can outvote the others by its scale.

    Args:
        q: one query per head.
        k: keys to vote on.
        scale: factor of the products; TokenSelect (arXiv 2411.02886) uses 1.
    """
    queries = (q.float() * scale).unflatten(1, (k.shape[1], -1))
    return (queries @ k.float().mT).softmax(-1).sum((1, 2))
