"""The layers between two cuts: which slots of the sequence live there, and the algebra of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaxtyping import Bool, Float, Int64
    from torch import Tensor


class Zone(NamedTuple):
    """Attributes as of one cut.

    Attributes:
        layer: first layer of the zone.
        slots: slots of the whole sequence that live, ascending; a shorter row ends in copies of its
            last one, which compute what it computes and are seen by nobody.
        valid: False at these copies; None when there are none.
        places: slots whose position numbers the living take; None for their own.
    """

    layer: int
    slots: Int64[Tensor, "b k"]
    valid: Bool[Tensor, "b k"] | None
    places: Int64[Tensor, "b k"] | None = None

    @property
    def numbered(self) -> Int64[Tensor, "b k"]:
        """Slots whose position numbers the living have."""
        return self.slots if self.places is None else self.places

    @property
    def size(self) -> int:
        """Tokens per row."""
        return self.slots.shape[1]

    def on(self, device: torch.device) -> Zone:
        """The zone where the layer is; models may be spread over devices."""
        valid = None if self.valid is None else self.valid.to(device)
        places = None if self.places is None else self.places.to(device)
        return self._replace(slots=self.slots.to(device), valid=valid, places=places)


def pad(rows: Sequence[Int64[Tensor, " k"]]) -> tuple[Int64[Tensor, "b k"], Tensor | None]:
    """Rows of one length, shorter ones continued by copies of their last entry, and which are real.

    The second value is None when all are of one length.
    """
    lengths = [len(row) for row in rows]
    longest = max(lengths)
    if min(lengths) == longest:
        return torch.stack(list(rows)), None
    padded = [torch.cat([row, row[-1:].expand(longest - len(row))]) for row in rows]
    places = torch.arange(longest, device=rows[0].device)
    real = places < torch.tensor(lengths, device=rows[0].device)[:, None]
    return torch.stack(padded), real


def take_tokens(x: Float[Tensor, "b s d"], index: Int64[Tensor, "b k"]) -> Float[Tensor, "b k d"]:
    """Some tokens of every row."""
    return x.gather(1, index.unsqueeze(-1).expand(-1, -1, x.shape[-1]))


def put_tokens(
    x: Float[Tensor, "b s d"], index: Int64[Tensor, "b k"], values: Float[Tensor, "b k d"]
) -> Float[Tensor, "b s d"]:
    """`x` with some tokens of every row replaced."""
    return x.scatter(1, index.unsqueeze(-1).expand(-1, -1, x.shape[-1]), values)


def take_phases(
    phases: Float[Tensor, "*axes #b s e"], index: Int64[Tensor, "b k"]
) -> Float[Tensor, "*axes b k e"]:
    """Rotary phases of some positions; M-RoPE has further axes in front."""
    shape = (*phases.shape[:-3], index.shape[0], *phases.shape[-2:])
    wide = index.unsqueeze(-1).expand(*shape[:-2], index.shape[1], shape[-1])
    return phases.expand(shape).gather(-2, wide)


def take_positions(positions: Tensor, index: Int64[Tensor, "b k"]) -> Tensor:
    """Position numbers `[..., #b, s]` of some tokens."""
    return take_phases(positions.unsqueeze(-1), index).squeeze(-1)


def prefill_mask(
    given: Tensor | None, zone: Zone, dtype: torch.dtype, additive: bool
) -> Tensor | None:
    """What rows of the zone see: what the model let them see, among the living.

    Args:
        given: the model's mask `[#b, 1, s, s]`, boolean or additive; None for plain causal.
        zone: the living.
        dtype: of the hidden states.
        additive: the kind of mask to build where none was given.
    """
    index, valid = zone.slots, zone.valid
    if given is None:
        if valid is None and not additive:
            return None
        seen = index.unsqueeze(1) <= index.unsqueeze(2)
        mask: Tensor = seen.unsqueeze(1)
        mask = as_additive(mask, dtype) if additive else mask
    else:
        b, k = index.shape
        wide = given.expand(b, *given.shape[1:])
        rows = wide.gather(2, index.view(b, 1, k, 1).expand(-1, -1, -1, wide.shape[-1]))
        mask = rows.gather(3, index.view(b, 1, 1, k).expand(-1, -1, k, -1))
    return hide(mask, valid)


def decode_mask(
    given: Tensor | None, zone: Zone, new: int, rows: int, dtype: torch.dtype, additive: bool
) -> Tensor | None:
    """What new rows see on a pruned cache: the living, and what came after the prefill.

    Args:
        given: the model's mask `[#b, 1, rows, all]`; None when rows see every key before them.
        zone: the living of the prefill.
        new: tokens since the prefill, these rows included.
        rows: new rows of this pass.
        dtype: of the hidden states.
        additive: the kind of mask to build where none was given.
    """
    b, device = zone.slots.shape[0], zone.slots.device
    valid = None
    if zone.valid is not None:
        valid = torch.cat([zone.valid, zone.valid.new_ones(b, new)], 1)
    if given is not None:
        tail = torch.arange(given.shape[-1] - new, given.shape[-1], device=device)
        index = torch.cat([zone.slots, tail.expand(b, -1)], 1)
        wide = given.expand(b, *given.shape[1:])
        columns = index.view(b, 1, 1, -1).expand(-1, wide.shape[1], wide.shape[2], -1)
        return hide(wide.gather(3, columns), valid)
    if rows == 1 and valid is None:
        return None
    keys = torch.arange(zone.size + new, device=device)
    mask = (keys <= keys[-rows:, None]).expand(b, 1, -1, -1)
    return hide(as_additive(mask, dtype) if additive else mask, valid)


def hide(mask: Tensor, valid: Bool[Tensor, "b t"] | None) -> Tensor:
    """The mask with the keys hidden that are not valid."""
    if valid is None:
        return mask
    keys = valid[:, None, None]
    if mask.dtype == torch.bool:
        return mask & keys
    return mask.masked_fill(~keys, torch.finfo(mask.dtype).min)


def as_additive(seen: Bool[Tensor, "b 1 q t"], dtype: torch.dtype) -> Float[Tensor, "b 1 q t"]:
    """0 where a row sees a key, the least number elsewhere."""
    zero = torch.zeros(seen.shape, dtype=dtype, device=seen.device)
    return zero.masked_fill(~seen, torch.finfo(dtype).min)


def replaced(output: Any, x: Tensor) -> Any:
    """A layer's output with other hidden states; some versions return a tuple."""
    return (x, *output[1:]) if isinstance(output, tuple) else x


def hidden_of(output: Any) -> Tensor:
    """The hidden states of a layer's output."""
    return output[0] if isinstance(output, tuple) else output
