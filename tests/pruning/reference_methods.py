"""More slow references: whole methods straight from their formulas, loops and lists."""

from __future__ import annotations

import math

import numpy as np

from tests.pruning.reference import top_k


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    lengths = math.sqrt(float(a @ a)) * math.sqrt(float(b @ b))
    return float(a @ b) / lengths if lengths else 0.0


def coverage(weights: np.ndarray, k: int) -> list[int]:
    """Greedy facility location: every gain in every round."""
    rows, n = weights.shape
    best, chosen = [0.0] * rows, []
    for _ in range(k):
        gains = {
            j: sum(max(0.0, float(weights[r, j]) - best[r]) for r in range(rows))
            for j in range(n)
            if j not in chosen
        }
        top = min(gains, key=lambda j: (-gains[j], j))
        chosen.append(top)
        best = [max(best[r], float(weights[r, top])) for r in range(rows)]
    return sorted(chosen)


def dpp(kernel: np.ndarray, k: int) -> list[int]:
    """Greedy by whole determinants."""
    chosen: list[int] = []
    for _ in range(k):
        values = {
            j: np.linalg.det(kernel[np.ix_([*chosen, j], [*chosen, j])].astype(float))
            for j in range(len(kernel))
            if j not in chosen
        }
        chosen.append(min(values, key=lambda j: (-values[j], j)))
    return sorted(chosen)


def max_sum(features: np.ndarray, pivot: int, k: int) -> list[int]:
    chosen = [pivot]
    while len(chosen) < k:
        sums = {
            i: sum(cosine(features[i], features[j]) for j in chosen)
            for i in range(len(features))
            if i not in chosen
        }
        chosen.append(min(sums, key=lambda i: (sums[i], i)))
    return sorted(chosen)


def farthest(features: np.ndarray, weights: np.ndarray, k: int) -> list[int]:
    chosen = [int(np.argmax(weights))]
    while len(chosen) < k:
        values = {
            i: float(weights[i])
            * max(0.0, min(1 - cosine(features[i], features[j]) for j in chosen))
            for i in range(len(features))
            if i not in chosen
        }
        chosen.append(min(values, key=lambda i: (-values[i], i)))
    return sorted(chosen)


def softmax(row: np.ndarray) -> np.ndarray:
    e = np.exp(row.astype(float) - row.max())
    return e / e.sum()


def soft_vote(q: np.ndarray, k: np.ndarray, scale: float) -> np.ndarray:
    """One query `[heads, e]` and keys `[key heads, n, e]`, one head at a time."""
    share = len(q) // len(k)
    return sum(softmax(k[h // share] @ q[h] * scale) for h in range(len(q)))


def raters(features: np.ndarray, text: np.ndarray) -> list[int]:
    relevance = sum(softmax(text @ token) for token in features) / len(features)
    return [word for word in range(len(text)) if relevance[word] >= relevance.mean() * (1 - 1e-6)]


def sparsevlm(features: np.ndarray, text: np.ndarray, rows: np.ndarray, k: int) -> list[int]:
    chosen = raters(features, text)
    return top_k(sum(rows[word] for word in chosen) / len(chosen), k)


def lightvla(patches: np.ndarray, task: np.ndarray) -> np.ndarray:
    """Votes of every patch."""

    def norm(x: np.ndarray) -> np.ndarray:
        return x / math.sqrt(float((x * x).mean()) + 1e-6)

    width, votes = patches.shape[1], np.zeros(len(patches), int)
    words = [norm(word) for word in task]
    for patch in patches:
        weights = softmax(np.array([norm(patch) @ word for word in words]) / math.sqrt(width))
        query = norm(sum(w * word for w, word in zip(weights, words, strict=True)))
        votes[int(np.argmax([query @ other for other in patches]))] += 1
    return votes


def dart(hidden: np.ndarray, text: np.ndarray, k: int, pivots: int, words: int) -> list[int]:
    visual = top_k(np.abs(hidden).sum(1), min(pivots, k))
    spoken = top_k(np.abs(text).sum(1), words)
    anchors = [hidden[i] for i in visual] + [text[i] for i in spoken]
    chosen, left = list(visual), k - len(visual)
    for turn, anchor in enumerate(anchors):
        share = left // len(anchors) + (turn < left % len(anchors))
        rest = [i for i in range(len(hidden)) if i not in chosen]
        rest.sort(key=lambda i: (cosine(anchor, hidden[i]), i))
        chosen += rest[:share]
    return sorted(chosen)


def mmtok(features: np.ndarray, tower: np.ndarray, text: np.ndarray, k: int) -> list[int]:
    n = len(features)
    rows = [softmax(np.array([cosine(w, f) for f in features]) / 0.02) / len(text) for w in text]
    rows += [0.5 * softmax(np.array([cosine(a, b) for b in tower]) / 0.2) / n for a in tower]
    return coverage(np.array(rows), k)


def divergence(p: np.ndarray, q: np.ndarray) -> float:
    total = 0.0
    for a, b in zip(p, q, strict=True):
        middle = (a + b) / 2
        total += (a * math.log2(a / middle) if a else 0.0) / 2
        total += (b * math.log2(b / middle) if b else 0.0) / 2
    return total


def pact(seen: np.ndarray, acted: np.ndarray, theta: float, rungs: tuple[int, ...]) -> list[int]:
    seen, acted = seen / seen.sum(), acted / acted.sum()
    target = min(max(theta + 0.1 * divergence(seen, acted), 0.15), 0.70)
    joint = (seen + acted) / 2
    for rung in rungs:
        kept = top_k(joint, rung)
        if min(seen[kept].sum(), acted[kept].sum()) >= target:
            break
    return kept


def outliers(score: np.ndarray) -> int:
    low, high = np.percentile(score, [25, 75])
    return sum(value > high + 1.5 * (high - low) for value in score)
