"""What lives in a pruned cache, and what later passes on it get to see."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MethodType
from typing import TYPE_CHECKING, Any

import torch

from pruning.adapters.errors import AdapterError
from pruning.adapters.zone import decode_mask

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jaxtyping import Bool, Int64
    from torch import Tensor

    from pruning.adapters.walk import Walk
    from pruning.adapters.zone import Zone

BOOK = "pruned_by_leanvla"
"""Attribute of a cache: what lives in it. A copy of the cache takes it along."""


@dataclass
class Book:
    """What lives in a cache.

    Attributes:
        real: False at padding of the prefill.
        zones: from each cut on.
    """

    real: Bool[Tensor, "b s"]
    zones: list[Zone]

    @property
    def length(self) -> int:
        """Tokens of the prefill, before any left."""
        return self.real.shape[1]

    def zone_of(self, layer: int) -> Zone | None:
        """The zone that a layer is in; None before the first cut."""
        return next((zone for zone in reversed(self.zones) if zone.layer <= layer), None)


@dataclass
class Step:
    """One pass on a pruned cache.

    Attributes:
        book: of the cache.
        new: tokens behind the prefill, this pass included.
        rows: tokens of this pass.
        masks: what was made for each zone.
        phases: likewise, where the living were numbered anew.
        query: queries heard at the layer whose rows are remembered.
    """

    book: Book
    new: int
    rows: int
    masks: dict[int, Tensor | None] = field(default_factory=dict)
    phases: dict[int, tuple[Tensor, ...]] = field(default_factory=dict)
    query: Tensor | None = None

    def adapt(
        self, layer: int, x: Tensor, inputs: dict[str, Any], additive: bool, rotary: Any
    ) -> None:
        """Mask and phases of a layer, in place, for the keys that it holds.

        Args:
            layer: about to run.
            x: hidden states of the new rows.
            inputs: keyword arguments of the layer.
            additive: the kind of mask to build where none was given.
            rotary: makes phases of position numbers.

        Raises:
            AdapterError: when the layer holds another number of them.
        """
        zone = self.book.zone_of(layer)
        if zone is None:
            return
        held = inputs["past_key_values"].layers[layer].keys.shape[-2]
        if held != zone.size + self.new - self.rows or len(x) != len(zone.slots):
            raise AdapterError(
                f"layer {layer} holds {held} tokens of {len(x)} samples, the prefill and what came "
                f"after make {zone.size + self.new - self.rows} of {len(zone.slots)}: the cache "
                "was cropped or changed in a way that pruning does not follow"
            )
        if zone.layer not in self.masks:
            given = inputs.get("attention_mask")
            self.masks[zone.layer] = decode_mask(
                given, zone.on(x.device), self.new, self.rows, x.dtype, additive
            )
        mask = self.masks[zone.layer]
        inputs["attention_mask"] = None if mask is None else mask.to(x.device)
        if zone.places is None:
            return
        if zone.layer not in self.phases:
            numbers = self._numbers(zone, inputs["position_ids"])
            self.phases[zone.layer] = tuple(rotary(x, position_ids=numbers))
        inputs["position_embeddings"] = tuple(p.to(x.device) for p in self.phases[zone.layer])

    def _numbers(self, zone: Zone, given: Int64[Tensor, "#b n"]) -> Int64[Tensor, "b n"]:
        """Position numbers that go on behind the last living token, not behind the prompt."""
        living = zone.size if zone.valid is None else zone.valid.sum(-1)
        left = self.book.real.sum(-1).to(given.device) - torch.as_tensor(living).to(given.device)
        return given - left.unsqueeze(-1)

    def valid(self, layer: int, device: torch.device) -> Bool[Tensor, "b t"] | None:
        """Which keys of a layer are no padding; None for all."""
        zone = self.book.zone_of(layer)
        real = self.book.real if zone is None else zone.valid
        if real is None or bool(zone is None and real.all()):
            return None
        real = real.to(device)
        return torch.cat([real, real.new_ones(len(real), self.new)], 1)


def is_filled(cache: Any) -> bool:
    """True when a forward goes on from a cache.

    Raises:
        AdapterError: for a static one.
    """
    if getattr(cache, "is_compileable", False):
        raise AdapterError(
            "a static cache has as many slots in every layer: leave cache_implementation out"
        )
    return cache is not None and cache.get_seq_length() > 0


def step_on(cache: Any, inputs: Mapping[str, Any]) -> Step | None:
    """The pass that is about to run on a cache; None when no prefill of a session filled it.

    Raises:
        AdapterError: for pictures, or when the cache and the inputs do not fit each other.
    """
    if any(inputs.get(name) is not None for name in ("pixel_values", "pixel_values_videos")):
        raise AdapterError(
            "pictures on a cache that is filled already: prefill the whole prompt in one pass"
        )
    book: Book | None = getattr(cache, BOOK, None)
    if book is None:
        return None
    ids, mask = inputs.get("input_ids"), inputs.get("attention_mask")
    rows = (inputs["inputs_embeds"] if ids is None else ids).shape[1]
    new = cache.get_seq_length() - book.length + rows
    padded = isinstance(mask, torch.Tensor) and mask.ndim == 2
    seen = mask.shape[-1] if padded else book.length + new  # type: ignore[union-attr]
    if new < rows or seen != book.length + new:
        raise AdapterError(
            f"the cache holds {new - rows} tokens behind the prefill, the inputs speak of "
            f"{seen - book.length - rows}: a pruned cache cannot be cropped into its prefill"
        )
    return Step(book, new, rows)


def write_book(walk: Walk) -> None:
    """Leave with the cache what lives in it."""
    cache = walk.cache
    setattr(cache, BOOK, Book(walk.real, walk.zones))
    if walk.zones and walk.zones[0].layer == 0:
        # The first layer's length counts for the whole cache: positions go on from it.
        layer = cache.layers[0]
        layer.tokens_that_left = walk.length - walk.zones[0].size
        layer.get_seq_length = MethodType(_full_length, layer)


def _full_length(layer: Any, *args: Any) -> int:
    held = type(layer).get_seq_length(layer, *args)
    return held + layer.tokens_that_left if held else 0
