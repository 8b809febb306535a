"""Qwen2-VL, Qwen2.5-VL and Qwen3-VL: images of any size, a view per image and per video frame.

Rotary phases have three axes (M-RoPE). They are taken by position like any others, so that what
lives keeps the time, height and width it came with.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pruning.adapters.family import IMAGES, VIDEOS, Family
from pruning.adapters.layout import Span

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from pruning.adapters.tower import Tower


class QwenVL(Family):
    """Qwen2-VL and Qwen2.5-VL."""

    name: ClassVar[str] = "Qwen2-VL, Qwen2.5-VL"
    models: ClassVar[tuple[str, ...]] = (
        "Qwen2VLForConditionalGeneration",
        "Qwen2VLModel",
        "Qwen2_5_VLForConditionalGeneration",
        "Qwen2_5_VLModel",
    )
    encoders: ClassVar[tuple[tuple[str, str], ...]] = (IMAGES, VIDEOS)
    axes: ClassVar[int] = 3

    def spans(
        self, core: Any, kind: int, inputs: Mapping[str, Any], pictures: list[Tensor]
    ) -> list[Span]:
        """As many views as an image has moments: one, or the frame pairs of a video."""
        from pruning.adapters.tower import grid_of

        grids = grid_of(inputs)
        spans = []
        for grid, picture in zip(grids, pictures, strict=True):
            spans += [Span(len(picture) // grid[0])] * grid[0]
        return spans

    def tower(self, core: Any) -> Tower:
        """The merger joins a square of patches; the last block that sees whole frames is read."""
        from pruning.adapters.tower import PackedTower

        vision, config = core.visual, core.visual.config
        merge = config.spatial_merge_size
        whole = getattr(config, "fullatt_block_indexes", None)
        window = config.window_size // merge // config.patch_size if whole else 0
        block = vision.blocks[max(whole) if whole else -1]
        return PackedTower(block.attn, vision.merger, merge * merge, window)


class Qwen3VL(QwenVL):
    """Features of three tower layers are added behind the first decoder layers (deepstack)."""

    name: ClassVar[str] = "Qwen3-VL"
    models: ClassVar[tuple[str, ...]] = ("Qwen3VLForConditionalGeneration", "Qwen3VLModel")

    def reads_deep(self, core: Any) -> int:
        """One decoder layer per tower layer that is read."""
        return len(core.config.vision_config.deepstack_visual_indexes)
