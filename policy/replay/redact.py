"""What is done to pictures that must not show who was there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from jaxtyping import UInt8

Redaction = Literal["none", "mosaic", "drop"]
"""`drop` writes no picture at all; `mosaic` writes blocks that show light and colour only."""

BLOCKS = 12  # along the longer edge


def redact(image: UInt8[np.ndarray, "h w 3"], redaction: Redaction) -> UInt8[np.ndarray, "h w 3"]:
    """The picture as it may be kept; a redacted recording cannot repeat its decisions."""
    if redaction == "none":
        return image
    height, width = image.shape[:2]
    block = max(1, -(-max(height, width) // BLOCKS))
    rows, columns = np.arange(0, height, block), np.arange(0, width, block)
    sums = np.add.reduceat(np.add.reduceat(image.astype(np.uint32), rows, 0), columns, 1)
    high = np.diff(np.append(rows, height))[:, None, None]
    wide = np.diff(np.append(columns, width))[None, :, None]
    means = (sums // (high * wide)).astype(np.uint8)
    return np.repeat(np.repeat(means, high[:, 0, 0], 0), wide[0, :, 0], 1)
