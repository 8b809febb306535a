"""TokenSelect's soft vote as a pruning score: every head votes with one unit of attention."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from pruning.base import Method, MethodError
from pruning.context import part
from pruning.qk import soft_vote
from pruning.similarity import finite

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from pruning.types import PruneContext


@dataclass(frozen=True)
class TokenSelect(Method):
    """Sum over heads of the softmax, over visual keys, of the mean text query's products (eq. 7).

    TokenSelect chooses keys and values per layer and query for long contexts and evicts nothing:
    that is `pruning.kv_select`. Here its vote ranks visual tokens once, at the cut, by the mean of
    the text queries, as of a chunk of a prefill (§5.2). Its reuse of the last choice while queries
    stay alike (algorithm 1) is the wrapper `reuse`.

    Deviation: keys are rotated where the release votes on unrotated ones. Query head `i` reads key
    head `i // (h / h_kv)`.

    Attributes:
        scaled: divide products by `sqrt(d)`; the release does not.
        pool: odd width of a running maximum over neighbouring tokens; 1 for none.
    """

    name: ClassVar[str] = "tokenselect"
    paper: ClassVar[str] = (
        "Wu et al., TokenSelect: Efficient Long-Context Inference and Length Extrapolation for "
        "LLMs via Dynamic Token-Level KV Cache Selection, arXiv 2411.02886"
    )
    needs: ClassVar[frozenset[str]] = frozenset({"heads"})
    cost: ClassVar[str] = "n d"
    exportable: ClassVar[bool] = True

    scaled: bool = False
    pool: int = 1

    def __post_init__(self) -> None:
        """Check the fields."""
        super().__post_init__()
        if self.pool < 1 or self.pool % 2 == 0:
            raise MethodError(f"pool is {self.pool}: give an odd width, 1 for none")

    def score(self, ctx: PruneContext) -> Float[Tensor, "g n"]:
        """The vote."""
        heads = part(ctx, "heads")
        query, keys = finite(heads.q.float(), "queries"), finite(heads.k, "keys")
        if ctx.text_mask is None:
            query = query.mean(2)
        else:
            said = ctx.text_mask[:, None, :, None].float()
            query = (query * said).sum(2) / said.sum(2).clamp_min(1)
        vote = soft_vote(query, keys, query.shape[-1] ** -0.5 if self.scaled else 1.0)
        if self.pool > 1:
            from torch.nn.functional import max_pool1d

            vote = max_pool1d(vote.unsqueeze(1), self.pool, 1, self.pool // 2).squeeze(1)
        return vote
