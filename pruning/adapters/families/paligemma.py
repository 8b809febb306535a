"""PaliGemma: the prompt, pictures and words, sees all of itself (a prefix language model)."""

from __future__ import annotations

from typing import ClassVar

from pruning.adapters.family import Family


class PaliGemma(Family):
    """One view per image. PaliGemma 2 has sliding-window layers and is refused."""

    name: ClassVar[str] = "PaliGemma"
    models: ClassVar[tuple[str, ...]] = ("PaliGemmaForConditionalGeneration", "PaliGemmaModel")
    prefix: ClassVar[bool] = True
