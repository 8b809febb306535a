"""LLaVA-1.5: every image is one view of as many tokens as its tower has patches."""

from __future__ import annotations

from typing import ClassVar

from pruning.adapters.family import Family


class Llava(Family):
    """The published layout without change."""

    name: ClassVar[str] = "LLaVA-1.5"
    models: ClassVar[tuple[str, ...]] = ("LlavaForConditionalGeneration", "LlavaModel")
