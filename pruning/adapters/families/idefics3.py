"""Idefics3 and SmolVLM: an image is cut into tiles, with words between them; a view per tile."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pruning.adapters.family import Family
from pruning.adapters.layout import Span

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from pruning.adapters.tower import Tower


class Idefics3(Family):
    """Both have the same layout."""

    name: ClassVar[str] = "Idefics3, SmolVLM"
    models: ClassVar[tuple[str, ...]] = (
        "Idefics3ForConditionalGeneration",
        "Idefics3Model",
        "SmolVLMForConditionalGeneration",
        "SmolVLMModel",
    )

    def decoder(self, core: Any) -> Any:
        """The language model inside."""
        return core.text_model

    def spans(
        self, core: Any, kind: int, inputs: Mapping[str, Any], pictures: list[Tensor]
    ) -> list[Span]:
        """Newer versions hand out the tiles of a sample as one."""
        total = sum(len(picture) for picture in pictures)
        return [Span(core.image_seq_len)] * (total // core.image_seq_len)

    def tower(self, core: Any) -> Tower:
        """The connector joins a square of patches, then projects."""
        from pruning.adapters.tower import PatchTower, blocks_of

        attention = blocks_of(core.vision_model)[-1].self_attn
        projector = core.connector.modality_projection
        return PatchTower(attention, projector, merge=core.connector.scale_factor)
