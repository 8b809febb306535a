"""Keys and values that a long-context decode attends to: sinks, the elected ones, the newest.

TokenSelect (arXiv 2411.02886): nothing is evicted; each layer and query elects its `most` slots by
a soft vote of the heads, and the last election stands while queries point the same way. Sinks and
newest slots always follow the cache.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from pruning.base import MethodError
from pruning.qk import soft_vote
from pruning.topk import top_k

if TYPE_CHECKING:
    from jaxtyping import Float, Int64
    from torch import Tensor


class Election(NamedTuple):
    """What a query attends to, and the vote behind it.

    Attributes:
        slots: sinks, elected and newest slots, sorted.
        elected: the elected ones alone.
        query: the queries that elected them.
    """

    slots: Int64[Tensor, "b m"]
    elected: Int64[Tensor, "b k"]
    query: Float[Tensor, "b h e"]


@dataclass(frozen=True)
class KVSelect:
    """Which slots of a layer's cache a query attends to.

    Attributes:
        sinks: first slots, always attended to.
        most: slots elected between sinks and newest ones.
        newest: last slots, always attended to.
        cosine: least cosine with the query of the last election for it to stand; above 1 never.
    """

    sinks: int = 128
    most: int = 2048
    newest: int = 512
    cosine: float = 0.9

    def __post_init__(self) -> None:
        """Check the fields.

        Raises:
            MethodError: for a count below 0, or nothing to elect.
        """
        if min(self.sinks, self.newest) < 0 or self.most < 1:
            raise MethodError("sinks and newest must be at least 0, most at least 1")

    def elect(
        self,
        q: Float[Tensor, "b h e"],
        k: Float[Tensor, "b kv t e"],
        last: Election | None = None,
    ) -> Election | None:
        """The election for a query; None while everything fits and all slots are attended to.

        Args:
            q: the query, or the mean query of a prefill chunk.
            k: all keys of the layer.
            last: this layer's last election.
        """
        import torch

        slots = k.shape[2]
        if slots <= self.sinks + self.most + self.newest:
            return None
        first_new = slots - self.newest
        if last is not None and self._stands(q, last):
            chosen, query = last.elected, last.query
        else:
            vote = soft_vote(q, k[:, :, self.sinks : first_new])
            chosen, query = top_k(vote, self.most) + self.sinks, q
        every = torch.arange(slots, device=k.device).expand(len(q), -1)
        parts = [every[:, : self.sinks], chosen, every[:, first_new:]]
        return Election(torch.cat(parts, 1), chosen, query)

    def _stands(self, q: Tensor, last: Election) -> bool:
        from torch.nn.functional import cosine_similarity

        likeness = cosine_similarity(q.float().flatten(1), last.query.float().flatten(1), dim=-1)
        return bool((likeness >= self.cosine).all())
