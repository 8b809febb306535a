"""Carry ViT weights from one patch size to another (as FlexiViT, arXiv 2212.08013, bilinear)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional

if TYPE_CHECKING:
    from torch import Tensor

TOWER = "vision_backbone.featurizer."


def resize_patches(state: dict[str, Tensor], patch: int, grid: int) -> dict[str, Tensor]:
    """A copy of `state` whose tower reads `grid` x `grid` patches of `patch` pixels.

    The kernel is pulled back through bilinear interpolation, so that a resized patch gives what its
    enlarged picture gave before; position embeddings are interpolated.
    """
    resized = dict(state)
    kernel = state[TOWER + "patch_embed.proj.weight"]
    position = state[TOWER + "pos_embed"]
    old_patch, old_grid = kernel.shape[-1], round(position.shape[1] ** 0.5)
    if patch != old_patch:
        pixels = torch.eye(patch * patch).view(-1, 1, patch, patch)
        enlarge = functional.interpolate(pixels, size=old_patch, mode="bilinear").flatten(1)
        flat = kernel.flatten(2).float() @ enlarge.T
        resized[TOWER + "patch_embed.proj.weight"] = flat.view(*kernel.shape[:2], patch, patch)
    if grid != old_grid:
        image = position.view(1, old_grid, old_grid, -1).permute(0, 3, 1, 2).float()
        image = functional.interpolate(image, size=grid, mode="bicubic", align_corners=False)
        resized[TOWER + "pos_embed"] = image.flatten(2).transpose(1, 2).contiguous()
    return resized
