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
from pruning.types import Budget, BudgetError

if TYPE_CHECKING:
    from jaxtyping import Float, Int64
    from torch import Tensor


NAME = "kv_select"
EXAMPLE = "kv_select:sinks=4:newest=32"
ABOUT = "keys and values elected by every query; no token leaves (docs/vlm.md, long contexts)"


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
        most: slots elected between sinks and newest ones: a count, or a share of all slots.
        newest: last slots, always attended to.
        cosine: least cosine with the query of the last election for it to stand; above 1 never.
    """

    sinks: int = 128
    most: int | float = 2048
    newest: int = 512
    cosine: float = 0.9

    def __post_init__(self) -> None:
        """Check the fields.

        Raises:
            MethodError: for a count below 0, or nothing to elect.
        """
        if min(self.sinks, self.newest) < 0:
            raise MethodError("sinks and newest must be at least 0")
        try:
            Budget(self.most)
        except BudgetError as error:
            raise MethodError(f"most: {error}") from error

    def count(self, slots: int) -> int:
        """How many of so many slots are elected."""
        return self.most if isinstance(self.most, int) else Budget(self.most).tokens(slots)

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
        most = self.count(slots)
        if slots <= self.sinks + most + self.newest:
            return None
        first_new = slots - self.newest
        if last is not None and last.elected.shape[1] == most and self._stands(q, last):
            chosen, query = last.elected, last.query
        else:
            vote = soft_vote(q, k[:, :, self.sinks : first_new])
            chosen, query = top_k(vote, most) + self.sinks, q
        every = torch.arange(slots, device=k.device).expand(len(q), -1)
        parts = [every[:, : self.sinks], chosen, every[:, first_new:]]
        return Election(torch.cat(parts, 1), chosen, query)

    def _stands(self, q: Tensor, last: Election) -> bool:
        from torch.nn.functional import cosine_similarity

        likeness = cosine_similarity(q.float().flatten(1), last.query.float().flatten(1), dim=-1)
        return bool((likeness >= self.cosine).all())


def kv_select_named(spec: str, keep: float | int) -> KVSelect:
    """`kv_select:sinks=4:newest=32` with `keep` of the slots elected.

    Raises:
        MethodError: for an option that is none, or an impossible value.
    """
    fields: dict[str, float] = {}
    for option in spec.split(":")[1:]:
        key, _, text = option.partition("=")
        try:
            fields[key] = {"sinks": int, "newest": int, "cosine": float}[key](text)
        except (KeyError, ValueError):
            raise MethodError(
                f"{option!r} of kv_select: give sinks, newest or cosine, e.g. newest=32"
            ) from None
    return KVSelect(most=keep, **fields)  # type: ignore[arg-type]
