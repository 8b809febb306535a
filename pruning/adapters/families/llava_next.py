"""LLaVA-NeXT: one view per image, its base tile, its tiles and the newline of every row."""

from __future__ import annotations

from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar

from pruning.adapters.family import Family

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from pruning.adapters.tower import Tower


class LlavaNext(Family):
    """AnyRes: views of different size, one context per size.

    What the tower shows is packed as the model packs features, with zeros for newlines.
    """

    name: ClassVar[str] = "LLaVA-NeXT"
    models: ClassVar[tuple[str, ...]] = ("LlavaNextForConditionalGeneration", "LlavaNextModel")

    def tower(self, core: Any) -> Tower:
        """The tower of LLaVA, with tiles packed."""
        tower: Any = super().tower(core)
        tower.pack = partial(self.pack, core)
        return tower

    def lacks(self, need: str) -> str | None:
        """No function of a tower token gives a newline."""
        if need == "project":
            return "features are unpadded and broken into lines behind the projector here"
        return None

    def pack(self, core: Any, values: Tensor, inputs: Mapping[str, Any]) -> Tensor:
        """Tiles `[tiles, patches, w]` as the tokens that they become, `[n, w]`."""
        import torch

        tiles = values.split(self.tiles(core, inputs))
        newline = values.new_zeros(values.shape[-1])
        packed, _ = core.pack_image_features(
            tiles, inputs["image_sizes"], image_newline=newline, **self.packing(core, inputs)
        )
        return torch.cat(packed)

    def packing(self, core: Any, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Further arguments of the model's own packing."""
        return {"vision_feature_select_strategy": core.config.vision_feature_select_strategy}

    def tiles(self, core: Any, inputs: Mapping[str, Any]) -> list[int]:
        """Tiles of each image, by the model's own rule."""
        rule = import_module(type(core).__module__).image_size_to_num_patches
        config = core.config
        side = config.vision_config.image_size
        return [rule(size, config.image_grid_pinpoints, side) for size in inputs["image_sizes"]]
