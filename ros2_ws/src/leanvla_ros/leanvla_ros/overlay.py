"""Kept tokens, drawn: what the policy looked at stays bright, what was pruned fades."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaxtyping import Int64, UInt8

_FADE = 4  # pruned patches are shown at one part in so many of their brightness


def draw_kept(
    images: Sequence[UInt8[np.ndarray, "h w 3"]],
    kept: Sequence[Int64[np.ndarray, " k"]],
    tokens_per_view: int,
) -> UInt8[np.ndarray, "h vw 3"]:
    """The views side by side, at the height of the first."""
    grid = math.isqrt(max(1, tokens_per_view))
    height = images[0].shape[0]
    out = []
    for image, living in zip(images, kept, strict=True):
        mask = np.zeros(grid * grid, bool)
        mask[living[living < grid * grid]] = True
        rows = np.arange(image.shape[0]) * grid // image.shape[0]
        columns = np.arange(image.shape[1]) * grid // image.shape[1]
        bright = mask.reshape(grid, grid)[rows][:, columns, None]
        picture = np.where(bright, image, image // _FADE)
        out.append(picture[np.arange(height) * image.shape[0] // height])
    return np.concatenate(out, axis=1)
