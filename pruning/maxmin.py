"""Max-min diversity: of the candidates, the `k` that lie farthest from one another.

The max-min diversity problem on cosine distance `d(a, b) = 1 - cos(a, b)`, solved greedily: start
with the candidate whose nearest other candidate is farthest away, then keep adding the candidate
whose nearest *chosen* one is farthest away. Each round only lowers the distances with one row, so
`k` of `c` candidates cost O(c k) after the distance matrix.

Three formulations choose the same sets: compiled loops on the candidates alone (CPU with numba),
the same in numpy, and torch with static shapes and no look at any value (accelerators, export). All
ties go to the lowest index.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pruning.jit import compiled
from pruning.similarity import finite
from pruning.topk import host_array, on_host

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Float32, Int64
    from torch import Tensor

TINY = 1e-30
"""Least squared norm: the cosine with an all-zero token is 0, not NaN."""

LARGE = 1 << 15
"""Numbers in a view from which BLAS's symmetric product pays for one call per view."""


def max_min(
    features: Float[Tensor, "g n d"],
    candidates: Bool[Tensor, "g n"],
    k: int,
    bf16: bool = False,
    most: int | None = None,
) -> Int64[Tensor, "g k"]:
    """Sorted indices of the `k` most diverse candidates of every group.

    Exactly `k` candidates pass unfiltered. Every group must have at least `k`.

    Args:
        features: embeddings; distances are computed in fp32.
        candidates: which tokens may be chosen.
        k: tokens to choose.
        bf16: round the distances to bfloat16, as VLA-Pruner's release does.
        most: no group has more candidates, so static shapes need not be larger; none for all.

    Raises:
        ScoreError: on an embedding that is not finite (CPU only).
    """
    import torch

    finite(features)
    if bf16 or not on_host(features):
        if most is None or most >= features.shape[1]:
            return greedy_static(distances(features, bf16), candidates, k)
        index, real = _packed(candidates, most)
        among = distances(_rows(features, index.unsqueeze(-1)), bf16)
        return index.gather(1, greedy_static(among, real, k))
    # The host reads the group's candidates alone: at half the tokens, a quarter of the matrix.
    embeddings = np.ascontiguousarray(host_array(features))
    masks = np.ascontiguousarray(candidates.numpy())
    kept = np.empty((len(masks), k), np.int64)
    loops = compiled(_loops)
    if loops is not None and embeddings[0].size < LARGE:
        loops(embeddings, masks, kept)
        return torch.from_numpy(kept)
    choose = compiled(greedy_loops) or greedy
    for group, mask in enumerate(masks):
        pool = np.flatnonzero(mask)
        if pool.size > k:
            # Whole views are not copied: one of 576 tokens of width 4096 is 9 MB.
            rows = embeddings[group] if pool.size == mask.size else embeddings[group, pool]
            pool = pool[choose(rows @ rows.T, k)]  # one buffer twice: syrk, exactly symmetric
        kept[group] = pool
    return torch.from_numpy(kept)


def greedy(gram: Float32[np.ndarray, "c c"], k: int) -> list[np.int64]:
    """Greedy max-min from all inner products: `k` positions, sorted. Eats the matrix."""
    distance = _distances(gram)
    diagonal = distance.reshape(-1)[:: len(distance) + 1]
    diagonal[:] = np.inf
    first = distance.min(axis=0).argmax()
    diagonal[:] = -np.inf  # a chosen one lowers itself to -inf: it is never chosen twice
    nearest = distance[first].copy()
    farthest, lower, chosen = nearest.argmax, np.minimum, [first]
    for _ in range(k - 1):
        token = farthest()
        lower(nearest, distance[token], nearest)
        chosen.append(token)
    return sorted(chosen)


def distances(features: Float[Tensor, "g n d"], bf16: bool = False) -> Float[Tensor, "g n n"]:
    """Cosine distances in fp32, exactly symmetric.

    The norms are folded in after the product, so that equal tokens tie exactly wherever the inner
    products are exact; the upper triangle is mirrored, because a GEMM need not be symmetric.
    """
    import torch

    values = features.float()
    gram = values @ values.mT
    gram = gram.triu() + gram.triu(1).mT
    # The diagonal in one stride: a graph of `diagonal` multiplies the square by a unit matrix.
    norms = gram.flatten(-2)[..., :: gram.shape[-1] + 1]
    inverse = 1.0 / norms.clamp_min(TINY).sqrt()
    cosine = gram * (inverse.unsqueeze(-1) * inverse.unsqueeze(-2))
    if bf16:
        return (1.0 - cosine.to(torch.bfloat16)).float()
    return 1.0 - cosine


def greedy_static(
    distance: Float[Tensor, "g n n"], candidates: Bool[Tensor, "g n"], k: int
) -> Int64[Tensor, "g k"]:
    """Greedy max-min with static shapes and without a host synchronisation; see `max_min`."""
    import torch

    never, always = float("-inf"), float("inf")
    closed = ~candidates.unsqueeze(1)
    # Masks are sums with infinities: one kernel each, where the fill of a square takes three.
    shut = torch.zeros_like(closed, dtype=distance.dtype).masked_fill(closed, always)
    itself = distance.new_full(distance.shape[-1:], always).diag()
    nearest = (distance + itself + shut).amin(-1).unsqueeze(1) - shut
    chosen, distance = [nearest.argmax(-1, keepdim=True)], distance - itself
    nearest = torch.full_like(shut, always).masked_fill(closed, never)
    for _ in range(k - 1):
        nearest = torch.minimum(nearest, _rows(distance, chosen[-1]))
        chosen.append(nearest.argmax(-1, keepdim=True))
    return torch.cat(chosen, 1).squeeze(-1).sort(-1).values


def _packed(
    candidates: Bool[Tensor, "g n"], most: int
) -> tuple[Int64[Tensor, "g m"], Bool[Tensor, "g m"]]:
    """Indices of the candidates in ascending order, filled up with others, and which are real."""
    import torch

    n = candidates.shape[1]
    before = torch.arange(n, device=candidates.device, dtype=torch.float32)
    ranks = torch.where(candidates, -before + n, -before - 1.0).topk(most, dim=-1)
    return ranks.indices, ranks.values > 0


def _rows(values: Float[Tensor, "g n d"], index: Int64[Tensor, "g k 1"]) -> Float[Tensor, "g k d"]:
    """Some rows of every group: one kernel eager, one node of a graph."""
    import torch

    width = values.shape[-1]
    if not torch.onnx.is_in_onnx_export():
        return values.gather(1, index.expand(-1, -1, width))
    each_alone: dict[str, Any] = {"batch_dims": 1}
    return torch.onnx.ops.symbolic(
        "GatherND", (values, index), each_alone, dtype=values.dtype, shape=(*index.shape[:2], width)
    )


def greedy_loops(gram: Float32[np.ndarray, "c c"], k: int) -> Int64[np.ndarray, " k"]:
    """`greedy` spelt out for the compiler: distances are made row by row as they are wanted."""
    count, one = len(gram), np.float32(1.0)
    inverse, gap = np.empty(count, np.float32), np.full(count, np.inf, np.float32)
    for a in range(count):
        inverse[a] = one / np.sqrt(max(gram[a, a], np.float32(TINY)))
        gram[a, a] = -np.inf  # farther than anything: nobody is its own neighbour
    for a in range(count):
        for b in range(count):
            distance = one - gram[a, b] * (inverse[a] * inverse[b])
            gap[b] = distance if distance < gap[b] else gap[b]
    token = gap.argmax()
    gap[:] = np.inf
    chosen = np.zeros(count, np.bool_)
    for _ in range(k):
        chosen[token] = True
        gap[token] = -np.inf
        for b in range(count):
            distance = one - gram[token, b] * (inverse[token] * inverse[b])
            gap[b] = distance if distance < gap[b] else gap[b]
        token = gap.argmax()
    return np.flatnonzero(chosen)


def _distances(gram: Float32[np.ndarray, "c c"]) -> Float32[np.ndarray, "c c"]:
    inverse = 1.0 / np.sqrt(np.maximum(gram.diagonal(), np.float32(TINY)))
    gram *= np.multiply.outer(inverse, inverse)
    return np.subtract(np.float32(1.0), gram, out=gram)


def _loops(
    features: Float32[np.ndarray, "g n d"],
    masks: Bool[np.ndarray, "g n"],
    kept: Int64[np.ndarray, "g k"],
) -> None:
    """Fill `kept`, all groups in one call: a dozen small numpy calls cost more than their work."""
    k, one = kept.shape[1], np.float32(1.0)
    for group in range(len(masks)):
        pool = np.flatnonzero(masks[group])
        count = len(pool)
        if count > k:
            rows = features[group][pool]
            distance = np.dot(rows, rows.T)
            inverse = np.empty(count, np.float32)
            for a in range(count):
                inverse[a] = one / np.sqrt(max(distance[a, a], np.float32(TINY)))
            gap = np.full(count, np.inf, np.float32)
            for a in range(count):
                for b in range(a + 1, count):
                    distance[a, b] = one - distance[a, b] * (inverse[a] * inverse[b])
                    distance[b, a] = distance[a, b]
                    gap[a] = min(gap[a], distance[a, b])
                    gap[b] = min(gap[b], distance[a, b])
            token = gap.argmax()
            gap[:] = np.inf
            chosen = np.zeros(count, np.bool_)
            for _ in range(k):
                chosen[token] = True
                for a in range(count):
                    gap[a] = min(gap[a], distance[token, a])
                gap[token] = -np.inf
                token = gap.argmax()
            pool = pool[chosen]
        kept[group] = pool
