"""Keys and values of the query before, for visual tokens that are not computed again."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

from policy.openvla.decoder import KeyValue

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from jaxtyping import Float, Int64
    from torch import Tensor

KEYS, VALUES = "reuse.k", "reuse.v"


class Reused(NamedTuple):
    """What stands in for the tokens that are not computed.

    Attributes:
        cut: first layer that reuses.
        idle: visual tokens that are not computed, numbered over the views laid end to end.
        busy: the others.
        before: keys and values `[layers, kv, visual, d]` from the cut on; None at first.
        mask: added to the attention logits; None where rows see all keys.
    """

    cut: int
    idle: Int64[Tensor, " r"]
    busy: Int64[Tensor, " k"]
    before: KeyValue | None
    mask: Float[Tensor, "1 1 s t"] | None

    def past(self, layer: int) -> KeyValue | None:
        """Keys and values of the idle tokens, in front of those that the layer computes."""
        if self.before is None or not self.idle.numel():
            return None
        k, v = (part[layer - self.cut][None].index_select(2, self.idle) for part in self.before)
        return KeyValue(k, v)

    def memory(self, caches: Sequence[KeyValue], views: int) -> dict[str, Tensor]:
        """Keys and values of all visual tokens for the next query, a row per view.

        Args:
            caches: of the layers from the cut on; idle tokens, BOS, busy tokens, all others.
            views: cameras.
        """
        kept = {}
        for name, at in ((KEYS, 0), (VALUES, 1)):
            layers = torch.cat([cache[at] for cache in caches])
            idle, busy = self.idle.numel(), self.busy.numel()
            whole = layers.new_empty(*layers.shape[:2], idle + busy, layers.shape[-1])
            whole[:, :, self.idle] = layers[:, :, :idle]
            whole[:, :, self.busy] = layers[:, :, idle + 1 : idle + 1 + busy]
            kept[name] = whole.unflatten(2, (views, -1)).permute(2, 0, 1, 3, 4).contiguous()
        return kept


def remembered(memory: Mapping[str, Tensor]) -> KeyValue | None:
    """Keys and values `[layers, kv, visual, d]` out of a query's memory; None at first."""
    if KEYS not in memory:
        return None
    k, v = (memory[name].permute(1, 2, 0, 3, 4).flatten(2, 3) for name in (KEYS, VALUES))
    return KeyValue(k, v)


def mask_of(
    rows: Int64[Tensor, " s"], idle: Int64[Tensor, " r"], dtype: torch.dtype
) -> Float[Tensor, "1 1 s t"]:
    """Causal by original position: rows see idle and computed tokens that come before them."""
    keys = torch.cat([idle, rows])
    later = keys[None] > rows[:, None]
    zero = torch.zeros((), dtype=dtype, device=rows.device)
    return zero.masked_fill(later, float("-inf"))[None, None]
