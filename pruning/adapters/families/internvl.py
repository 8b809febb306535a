"""InternVL: images as tiles of one size; a view per tile."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pruning.adapters.family import Family

if TYPE_CHECKING:
    from pruning.adapters.tower import Tower


class InternVL(Family):
    """Tiles of an image lie side by side."""

    name: ClassVar[str] = "InternVL"
    models: ClassVar[tuple[str, ...]] = ("InternVLForConditionalGeneration", "InternVLModel")

    def tower(self, core: Any) -> Tower:
        """A square of patches becomes one token in front of the projector."""
        from pruning.adapters.tower import PatchTower, block_behind, blocks_of

        config = core.config
        block = block_behind(config, blocks_of(core.vision_tower))
        prefix = int(config.vision_feature_select_strategy == "default")
        merge = round(1 / config.downsample_ratio)
        return PatchTower(block.attention, core.multi_modal_projector, prefix, merge)
