"""Token transition variation (TransPrune, arXiv 2507.20630): how much layers change each token."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jaxtyping import Bool, Float
    from torch import Tensor


def transition_variation(
    before: Float[Tensor, "b s d"],
    after: Float[Tensor, "b s d"],
    real: Bool[Tensor, " s"] | None = None,
) -> Float[Tensor, "b s"]:
    """`|out| / |in| * e_i / sum_j e_j` with `e = exp(1 - cos(in, out))`, over the whole sequence.

    Eq. 1 and 2 as the release computes them: eq. 2 has `1 - |cos|`.

    Args:
        before: input of an attention or MLP module, after its norm.
        after: its output, before the residual is added.
        real: False at padding, which no sum counts.
    """
    from torch.nn.functional import cosine_similarity

    given, out = before.float(), after.float()
    turned = (1 - cosine_similarity(given, out, dim=-1)).exp()
    if real is not None:
        turned = turned * real
    length = out.norm(dim=-1) / given.norm(dim=-1).clamp_min(1e-12)
    return length * turned / turned.sum(-1, keepdim=True)
