"""One file of weights for all graphs of an engine, written tensor by tensor.

Graphs refer to it by offset, so what several of them need is stored once, and an export never has
more than one tensor in memory besides the checkpoint's own pages.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from engines.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch import Tensor

WEIGHTS = "weights.bin"
PAGE, LINE = 4096, 64
_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2, "int8": 1, "int64": 8, "bool": 1}

Form = Literal["plain", "transposed", "int8", "int8_scale"]


class Stored(NamedTuple):
    """One tensor as graphs read it: which weight, in which form."""

    weight: str
    form: Form


@dataclass(frozen=True)
class Place:
    """Where a stored tensor lies in the file.

    Attributes:
        offset: bytes from the start.
        shape: as stored.
        dtype: numpy type name, or `bfloat16`.
    """

    offset: int
    shape: tuple[int, ...]
    dtype: str

    @property
    def nbytes(self) -> int:
        """Length in bytes."""
        return math.prod(self.shape) * _BYTES[self.dtype]


class WeightPlan:
    """Which tensors the file will hold, and where. Filled while graphs are made, then written."""

    def __init__(self) -> None:
        self.places: dict[Stored, Place] = {}
        self._end = 0

    def place(self, stored: Stored, shape: tuple[int, ...], dtype: str) -> Place:
        """The place of a tensor, the same for every graph that asks."""
        if stored not in self.places:
            place = Place(self._aligned(math.prod(shape) * _BYTES[dtype]), shape, dtype)
            self.places[stored] = place
            self._end = place.offset + place.nbytes
        return self.places[stored]

    def write(self, path: Path, weight: Callable[[str], Tensor]) -> None:
        """Write the file.

        Args:
            path: where to.
            weight: gives a weight by name; asked for one at a time.

        Raises:
            EngineError: when a weight has another shape than its graph expects.
        """
        with path.open("wb") as file:
            for stored, place in self.places.items():
                file.seek(place.offset)
                array = _form(weight(stored.weight), stored.form, place.dtype)
                if array.nbytes != place.nbytes:
                    raise EngineError(
                        f"weight {stored.weight} has shape {list(array.shape)}, its graph reads "
                        f"{list(place.shape)}: checkpoint and configuration do not belong together"
                    )
                file.write(array.data)
            file.truncate(max(self._end, 1))

    def _aligned(self, nbytes: int) -> int:
        step = PAGE if nbytes >= PAGE else LINE
        return -(-self._end // step) * step


def _form(tensor: Tensor, form: Form, dtype: str) -> np.ndarray:
    """The bytes of a weight in one of its forms."""
    import torch

    if form in ("int8", "int8_scale"):
        quantised, scale = quantise(tensor.float())
        return (scale if form == "int8_scale" else quantised).numpy()
    tensor = tensor.detach().to(getattr(torch, dtype))
    tensor = (tensor.t() if form == "transposed" else tensor).contiguous()
    if tensor.dtype == torch.bfloat16:  # numpy has no such type: the same bits
        tensor = tensor.view(torch.int16)
    return tensor.numpy()


def quantise(weight: Tensor) -> tuple[Tensor, Tensor]:
    """A linear layer's weight `[out, in]` as int8 `[in, out]`, and one scale per output."""
    import torch

    scale = weight.abs().amax(1).clamp_min(1e-12) / 127
    quantised = (weight / scale[:, None]).round().clamp(-127, 127).to(torch.int8)
    return quantised.t().contiguous(), scale
