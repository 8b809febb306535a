"""LightVLA's vote without its training: each patch, in the light of the task, elects one patch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from pruning.base import Method
from pruning.context import part
from pruning.similarity import finite

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from pruning.types import PruneContext

EPS = 1e-6


@dataclass(frozen=True)
class LightVLA(Method):
    """Votes of task-conditioned queries, in LightVLA's parameter-free form.

    `Q = norm(attend(norm(P), norm(T), norm(T)))`, scores `Q P' / sqrt(d)`, and every query votes
    for its best patch. Patches rank by votes, and by mean softmax score where votes are equal.
    Queries are mixtures of task tokens, so their products with patches are mixtures of the task's:
    patches are never multiplied with patches (after the release's code).

    Deviations: LightVLA fine-tunes the model so that the votes become useful, and keeps every
    patch with a vote, so its count is what comes out; this form is training-free, keeps exactly
    the budget, and takes the prompt alone as the task (the paper adds proprioception and action
    placeholders).
    """

    name: ClassVar[str] = "lightvla"
    paper: ClassVar[str] = (
        "The Better You Learn, The Smarter You Prune: Towards Efficient Vision-Language-Action "
        "Models via Differentiable Token Pruning, ICRA 2026, arXiv 2509.12594"
    )
    needs: ClassVar[frozenset[str]] = frozenset({"features", "text_features"})
    cost: ClassVar[str] = "n t d + n² t"
    exportable: ClassVar[bool] = True
    before_decoder: ClassVar[bool] = True

    def score(self, ctx: PruneContext) -> Float[Tensor, "g n"]:
        """Votes, and the mean softmax score, which is below 1, for ties."""
        from torch.nn.functional import one_hot

        patches = finite(ctx.features).float()
        task = _norm(finite(part(ctx, "text_features"), "text features").float())
        n, width = patches.shape[1:]
        asked = task @ patches.mT * width**-0.5  # [t, n]: no product of patches with patches
        logits = asked.mT / _length(patches)
        if ctx.text_mask is not None:
            logits = logits.masked_fill(~ctx.text_mask.unsqueeze(1), float("-inf"))
        mix = logits.softmax(-1)
        squares = ((mix @ (task @ task.mT)) * mix).sum(-1, keepdim=True)
        scores = mix @ asked / (squares / width + EPS).sqrt()
        votes = one_hot(scores.argmax(-1), n).sum(1)
        return votes + scores.softmax(-1).mean(1)


def _norm(x: Float[Tensor, "g n d"]) -> Float[Tensor, "g n d"]:
    """Root-mean-square norm without weights."""
    return x / _length(x)


def _length(x: Float[Tensor, "g n d"]) -> Float[Tensor, "g n 1"]:
    return (x.square().mean(-1, keepdim=True) + EPS).sqrt()
