"""Slow, plain references: loops and lists, straight from the formulas."""

from __future__ import annotations

import numpy as np


def top_k(scores: np.ndarray, k: int) -> list[int]:
    """Indices of the k largest, ties to the lowest index."""
    order = sorted(range(len(scores)), key=lambda i: (-float(scores[i]), i))
    return sorted(order[:k])


def cosine_distance(features: np.ndarray) -> np.ndarray:
    """1 - cos for every pair, fp32 with the norms folded in after the inner product."""
    n = len(features)
    gram = np.empty((n, n), np.float32)
    for a in range(n):
        for b in range(n):
            gram[a, b] = np.float32(np.dot(features[a].astype(float), features[b].astype(float)))
    inverse = [np.float32(1) / np.sqrt(max(gram[a, a], np.float32(1e-30))) for a in range(n)]
    distance = np.empty((n, n), np.float32)
    for a in range(n):
        for b in range(n):
            distance[a, b] = np.float32(1) - gram[a, b] * (inverse[a] * inverse[b])
    return distance


def max_min(distance: np.ndarray, pool: list[int], k: int) -> list[int]:
    """Greedy max-min diversity: strict comparisons, so the lowest index wins every tie."""
    if len(pool) <= k:
        return sorted(pool)
    start, widest = None, -np.inf
    for a in sorted(pool):
        gap = min(distance[a, b] for b in pool if b != a)
        if gap > widest:
            start, widest = a, gap
    chosen = [start]
    while len(chosen) < k:
        best, widest = None, -np.inf
        for a in sorted(set(pool) - set(chosen)):
            gap = min(distance[a, b] for b in chosen)
            if gap > widest:
                best, widest = a, gap
        chosen.append(best)
    return sorted(chosen)


def vla_pruner(
    features: np.ndarray, semantic: np.ndarray, guide: np.ndarray | None, k: int
) -> list[int]:
    """Kept indices of one group."""
    meaning = top_k(semantic, k)
    action = [] if guide is None else top_k(guide, k)
    return max_min(cosine_distance(features), sorted({*meaning, *action}), k)


def attention_mean(
    q: np.ndarray, k: np.ndarray, rows: list[int], columns: list[int], causal: bool
) -> np.ndarray:
    """Mean softmax probability `[b, columns]` in fp64, one head and one row at a time."""
    batch, heads, s, width = q.shape
    t, share = k.shape[2], heads // k.shape[1]
    mean = np.zeros((batch, len(columns)))
    for b in range(batch):
        for h in range(heads):
            for r in rows:
                logits = k[b, h // share].astype(float) @ q[b, h, r].astype(float) / width**0.5
                if causal:
                    logits[r + t - s + 1 :] = -np.inf
                p = np.exp(logits - logits.max())
                mean[b] += (p / p.sum())[columns]
    return mean / (heads * len(rows))
