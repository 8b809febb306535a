"""Recycling: the best of the tokens that leave are merged to a few, which live.

Cluster centres are density peaks (Rodriguez & Laio; SparseVLM's eq. 8 and 9, in cosine distance):
tokens with many near neighbours and far from any denser token. Sizes depend on shapes alone, so
that a graph of this is static.
"""

from __future__ import annotations

from math import floor
from typing import TYPE_CHECKING

from pruning.similarity import cosines, merge_map
from pruning.topk import membership, top_k
from pruning.types import Selection

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

NEIGHBOURS = 5
"""Nearest tokens that a density is computed from."""


def recycle(
    features: Float[Tensor, "g n d"],
    score: Float[Tensor, "g n"],
    keep: int,
    recycled: float,
    clusters: float,
) -> Selection:
    """Keep `keep` tokens in all: the best ones, and clusters of the next best.

    Args:
        features: embeddings to cluster by.
        score: what each token is worth.
        keep: tokens and clusters together.
        recycled: share of the leaving tokens that are clustered.
        clusters: clusters per recycled token.
    """
    n = score.shape[-1]
    pool = floor(recycled * (n - keep))
    centres = min(floor(pool * clusters) + 1, keep - 1) if pool else 0
    if centres < 1:
        return Selection(top_k(score, keep))
    best = membership(top_k(score, keep - centres), n)
    rest = score.float().masked_fill(best, float("-inf"))
    givers = membership(top_k(rest, min(pool + centres, n - keep + centres)), n)
    likeness = cosines(features)
    peaks = _peaks(likeness, givers).masked_fill(~givers, float("-inf"))
    centre = membership(top_k(peaks, centres), n)
    kept = top_k((best | centre).float(), keep)
    takers = centre.gather(1, kept)
    return Selection(kept, merge=merge_map(kept, givers.float(), likeness, takers, givers))


def _peaks(likeness: Float[Tensor, "g n n"], pool: Tensor) -> Float[Tensor, "g n"]:
    """Density times distance to the nearest denser token, within the pool."""
    import torch

    n = likeness.shape[-1]
    itself = torch.eye(n, dtype=torch.bool, device=likeness.device)
    distance = (1 - likeness).clamp_min(0)
    near = distance.masked_fill(itself | ~pool.unsqueeze(1), 2.0)
    closest = near.topk(min(NEIGHBOURS, n), dim=-1, largest=False).values
    density = (-closest.square().mean(-1)).exp()
    denser = (density.unsqueeze(1) > density.unsqueeze(2)) & pool.unsqueeze(1)
    apart = distance.masked_fill(~denser, 2.0).amin(-1)
    return density * apart
