"""Statistics of a data set, gathered while it is written: nothing is read twice."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from jaxtyping import Float64, UInt8


@dataclass
class _Sums:
    """Running sums per value."""

    count: int = 0
    total: Any = 0.0
    squares: Any = 0.0
    low: Any = np.inf
    high: Any = -np.inf

    def add(self, values: Float64[np.ndarray, "n k"]) -> None:
        self.count += len(values)
        self.total = self.total + values.sum(0)
        self.squares = self.squares + (values**2).sum(0)
        self.low = np.minimum(self.low, values.min(0))
        self.high = np.maximum(self.high, values.max(0))


@dataclass
class Stats:
    """Minimum, maximum, mean and deviation of every column; pictures per channel in [0, 1]."""

    columns: dict[str, _Sums] = field(default_factory=dict)
    pictures: dict[str, tuple[_Sums, int]] = field(default_factory=dict)

    def vectors(self, name: str, values: Float64[np.ndarray, "n k"]) -> None:
        """Take rows of a column in."""
        self.columns.setdefault(name, _Sums()).add(values)

    def picture(self, name: str, image: UInt8[np.ndarray, "h w 3"]) -> None:
        """Take one picture in."""
        sums, frames = self.pictures.get(name, (_Sums(), 0))
        sums.add(image.reshape(-1, 3) / 255.0)
        self.pictures[name] = (sums, frames + 1)

    def summary(self) -> dict[str, Any]:
        """Everything as JSON values, in the format's shapes: pictures `[3, 1, 1]`."""
        out = {name: _summary(sums, sums.count, (-1,)) for name, sums in self.columns.items()}
        for name, (sums, frames) in self.pictures.items():
            out[name] = _summary(sums, frames, (3, 1, 1))
        return out


def _summary(sums: _Sums, count: int, shape: tuple[int, ...]) -> dict[str, Any]:
    mean = sums.total / sums.count
    deviation = np.sqrt(np.maximum(sums.squares / sums.count - mean**2, 0.0))
    values = {"min": sums.low, "max": sums.high, "mean": mean, "std": deviation}
    return {name: np.reshape(v, shape).tolist() for name, v in values.items()} | {"count": [count]}
