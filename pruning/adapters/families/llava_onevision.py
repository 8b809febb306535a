"""LLaVA-OneVision: images as in LLaVA-NeXT, videos as pooled frames."""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING, Any, ClassVar

from pruning.adapters.families.llava_next import LlavaNext
from pruning.adapters.family import IMAGES, VIDEOS
from pruning.adapters.layout import Span

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor


class LlavaOneVision(LlavaNext):
    """A view per image, a view per video frame; the newline behind a video always lives."""

    name: ClassVar[str] = "LLaVA-OneVision"
    models: ClassVar[tuple[str, ...]] = (
        "LlavaOnevisionForConditionalGeneration",
        "LlavaOnevisionModel",
    )
    encoders: ClassVar[tuple[tuple[str, str], ...]] = (IMAGES, VIDEOS)

    def spans(
        self, core: Any, kind: int, inputs: Mapping[str, Any], pictures: list[Tensor]
    ) -> list[Span]:
        """Frames of a video are equal."""
        if not kind:
            return super().spans(core, kind, inputs, pictures)
        pixels, vision = _video(inputs), core.config.vision_config
        side = ceil(vision.image_size // vision.patch_size / 2)
        video = [*[Span(side * side)] * pixels.shape[1], Span(1, is_view=False)]
        return video * len(pixels)

    def pack(self, core: Any, values: Tensor, inputs: Mapping[str, Any]) -> Tensor:
        """Frames are pooled, and a newline follows a video's last one."""
        if not inputs["kind"]:
            return super().pack(core, values, inputs)
        from torch.nn.functional import pad

        videos = core.apply_pooling(values).unflatten(0, (len(_video(inputs)), -1)).flatten(1, 2)
        return pad(videos, (0, 0, 0, 1)).flatten(0, 1)

    def packing(self, core: Any, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Many tiles are scaled down to the ratio that the configuration names."""
        ratio = inputs.get("vision_aspect_ratio") or core.config.vision_aspect_ratio
        return {"vision_aspect_ratio": ratio}

    def tiles(self, core: Any, inputs: Mapping[str, Any]) -> list[int]:
        """Images of a sample that has several are not cut into tiles."""
        tiles, numbers = super().tiles(core, inputs), inputs.get("batch_num_images")
        if numbers is None:
            return tiles
        alone = [int(number) == 1 for number in numbers for _ in range(int(number))]
        return [count if one else 1 for count, one in zip(tiles, alone, strict=True)]


def _video(inputs: Mapping[str, Any]) -> Tensor:
    """Pixels `[videos, frames, ...]`; older versions name them as those of images."""
    return inputs["pixel_values_videos" if "pixel_values_videos" in inputs else "pixel_values"]
