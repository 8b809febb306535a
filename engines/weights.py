"""One file of weights for all graphs of an engine, written tensor by tensor.

Graphs refer to it by offset, so what several of them need is stored once, and an export never has
more than one tensor in memory besides the checkpoint's own pages. `weights.json` says what lies
where: with it the file can be written anew from a checkpoint, without torch.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import msgspec
import numpy as np

from engines.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from torch import Tensor

WEIGHTS = "weights.bin"
TABLE = "weights.json"
PAGE, LINE = 4096, 64
_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2, "int8": 1, "int64": 8, "bool": 1}
_BYTES |= {"float8e4m3fn": 1}
MOST_FP8 = 448.0

Form = Literal["plain", "transposed", "int8", "int8_scale", "fp8", "fp8_scale"]


class Stored(NamedTuple):
    """One tensor as graphs read it: which weight, in which form."""

    weight: str
    form: Form


class Place(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where a stored tensor lies in the file.

    Attributes:
        weight: its name in the checkpoint.
        form: how it is stored.
        offset: bytes from the start.
        shape: as stored.
        dtype: numpy type name, or `bfloat16`.
    """

    weight: str
    form: Form
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
            offset = self._aligned(math.prod(shape) * _BYTES[dtype])
            place = Place(stored.weight, stored.form, offset, shape, dtype)
            self.places[stored] = place
            self._end = place.offset + place.nbytes
        return self.places[stored]

    def entries(self) -> list[Place]:
        """All places in the order of the file."""
        return list(self.places.values())

    def _aligned(self, nbytes: int) -> int:
        step = PAGE if nbytes >= PAGE else LINE
        return -(-self._end // step) * step


def write_weights(
    path: Path, places: Sequence[Place], weight: Callable[[str], Tensor | np.ndarray]
) -> None:
    """Write the file.

    Args:
        path: where to.
        places: what it holds.
        weight: gives a weight by name; asked for one at a time.

    Raises:
        EngineError: when a weight has another shape than its graph expects.
    """
    end = 1
    with path.open("wb") as file:
        for place in places:
            file.seek(place.offset)
            array = _form(weight(place.weight), place.form, place.dtype)
            if array.nbytes != place.nbytes:
                raise EngineError(
                    f"weight {place.weight} has shape {list(array.shape)}, its graph reads "
                    f"{list(place.shape)}: checkpoint and configuration do not belong together"
                )
            file.write(array.data)
            end = max(end, place.offset + place.nbytes)
        file.truncate(end)


def write_table(folder: Path, places: Sequence[Place]) -> None:
    """Write `weights.json`: one line per tensor."""
    lines = ",\n".join(msgspec.json.encode(place).decode() for place in places)
    (folder / TABLE).write_text(f"[\n{lines}\n]\n", encoding="utf-8")


def read_table(folder: Path) -> list[Place]:
    """Read `weights.json`.

    Raises:
        EngineError: when it is missing or damaged.
    """
    path = folder / TABLE
    try:
        return msgspec.json.decode(path.read_bytes(), type=list[Place])
    except FileNotFoundError:
        raise EngineError(f"{path} is missing: export the engine again") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise EngineError(f"{path} is damaged ({error}): export the engine again") from None


def _form(weight: Any, form: Form, dtype: str) -> np.ndarray:
    """The bytes of a weight in one of its forms."""
    if isinstance(weight, np.ndarray) and form in ("plain", "transposed") and dtype != "bfloat16":
        array = weight.astype(dtype, copy=False)
        return np.ascontiguousarray(array.T if form == "transposed" else array)
    import torch

    tensor = torch.as_tensor(weight)
    if form not in ("plain", "transposed"):
        to_eight_bits = quantise if form.startswith("int8") else quantise_fp8
        quantised, scale = to_eight_bits(tensor.float())
        if form.endswith("scale"):
            return scale.to(getattr(torch, dtype)).numpy()
        return quantised.view(torch.int8).numpy()
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


def quantise_fp8(weight: Tensor) -> tuple[Tensor, Tensor]:
    """A linear layer's weight `[out, in]` as float8 e4m3 `[in, out]`, and one scale for all."""
    import torch

    scale = weight.abs().amax().clamp_min(1e-12) / MOST_FP8
    quantised = (weight / scale).clamp(-MOST_FP8, MOST_FP8).to(torch.float8_e4m3fn)
    return quantised.t().contiguous(), scale
