"""Carry CLIP weights from one patch size to another (as FlexiViT, arXiv 2212.08013)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

KERNEL = "vision_tower.embeddings.patch_embedding.weight"
PLACES = "vision_tower.embeddings.position_embedding.weight"


def resize_patches(state: dict[str, Tensor], patch: int, grid: int) -> dict[str, Tensor]:
    """A copy of `state` whose tower reads `grid` x `grid` patches of `patch` pixels.

    A finer kernel gives on a small patch what the coarser one gave on that patch enlarged.
    """
    resized = dict(state)
    for name, value in state.items():
        if name.endswith(KERNEL) and value.shape[-1] != patch:
            resized[name] = _kernel(value, patch)
        if name.endswith(PLACES) and value.shape[0] != grid * grid + 1:
            resized[name] = _places(value, grid)
    return resized


def _kernel(weight: Float[Tensor, "d 3 p p"], patch: int) -> Float[Tensor, "d 3 q q"]:
    """The kernel pulled back through bilinear enlargement of the new patch to the old size."""
    old = weight.shape[-1]
    basis = torch.eye(patch * patch).view(-1, 1, patch, patch)
    enlarge = functional.interpolate(basis, (old, old), mode="bilinear", align_corners=False)
    return (weight.float().flatten(2) @ enlarge.flatten(1).T).unflatten(2, (patch, patch))


def _places(table: Float[Tensor, "n d"], grid: int) -> Float[Tensor, "m d"]:
    """Position embeddings of a finer grid between those of the coarser; the class token's stays."""
    side = round((table.shape[0] - 1) ** 0.5)
    square = table[1:].float().T.view(1, -1, side, side)
    finer = functional.interpolate(square, (grid, grid), mode="bilinear", align_corners=False)
    return torch.cat([table[:1].float(), finer.flatten(2)[0].T])
