"""How far outputs of an engine are from those of its reference."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from engines.manifest import Comparison

if TYPE_CHECKING:
    from collections.abc import Mapping

    Outputs = Mapping[str, np.ndarray]


def compare(have: np.ndarray, want: np.ndarray) -> Comparison:
    """Cosine and largest difference of two arrays, in double precision."""
    a, b = np.asarray(have, np.float64).ravel(), np.asarray(want, np.float64).ravel()
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        return Comparison(-1.0, float("inf"))
    norms = np.linalg.norm(a) * np.linalg.norm(b)
    cosine = 1.0 if np.array_equal(a, b) else float(a @ b / norms) if norms else 0.0
    return Comparison(min(cosine, 1.0), float(np.abs(a - b).max(initial=0.0)))


class StageLedger:
    """The worst comparison of every output of every stage."""

    def __init__(self) -> None:
        self.worst: dict[str, Comparison] = {}

    def add(self, stage: str, have: Outputs, want: Outputs) -> None:
        """Compare the outputs of one run."""
        for name, value in want.items():
            new, key = compare(have[name], value), f"{stage}.{name}"
            old = self.worst.get(key, new)
            self.worst[key] = Comparison(min(old.cosine, new.cosine), max(old.max_abs, new.max_abs))
