"""Percentiles, and intervals of a ratio by resampling rounds."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaxtyping import Float

LEAST = 1e-3
"""A clock of coarse ticks gives 0 for a short stretch of processor time: a ratio stays finite, and
its interval is wide."""
RESAMPLES = 2000
PERCENTILES = {"p50": 50.0, "p95": 95.0, "p99": 99.0}


class Ratio(NamedTuple):
    """A ratio of medians with its 95 % interval; `n` is how many rounds it rests on."""

    value: float
    low: float
    high: float
    n: int


def spread(values: Sequence[float]) -> dict[str, float]:
    """p50, p95, p99, max and mean of some times.

    Raises:
        ValueError: for no values at all.
    """
    if not len(values):
        raise ValueError("no values: a percentile of nothing is undefined")
    array = np.asarray(values, np.float64)
    found = {name: float(np.percentile(array, q)) for name, q in PERCENTILES.items()}
    return {**found, "max": float(array.max()), "mean": float(array.mean())}


def paired_ratio(above: Sequence[float], below: Sequence[float], *, seed: int = 0) -> Ratio:
    """Median of `above` over median of `below`, both measured in the same rounds.

    Whole rounds are resampled, so a slow moment of the machine, which hits both, widens the
    interval little. The percentile bootstrap is used as it is, without correction.

    Raises:
        ValueError: when the two differ in length or are empty.
    """
    a, b = np.asarray(above, np.float64), np.asarray(below, np.float64)
    if a.shape != b.shape or not len(a):
        raise ValueError(f"{len(a)} and {len(b)} values: a paired ratio needs as many of each")
    picks = np.random.default_rng(seed).integers(len(a), size=(RESAMPLES, len(a)))
    return _ratio(a, b, np.median(a[picks], axis=1), np.median(b[picks], axis=1))


def unpaired_ratio(above: Sequence[float], below: Sequence[float], *, seed: int = 0) -> Ratio:
    """Median of `above` over median of `below`, measured apart from each other.

    Raises:
        ValueError: when either is empty.
    """
    a, b = np.asarray(above, np.float64), np.asarray(below, np.float64)
    if not len(a) or not len(b):
        raise ValueError("no values: a ratio with nothing is undefined")
    draw = np.random.default_rng(seed)
    medians = (
        np.median(x[draw.integers(len(x), size=(RESAMPLES, len(x)))], axis=1) for x in (a, b)
    )
    return _ratio(a, b, *medians)


def _ratio(
    a: Float[np.ndarray, " n"],
    b: Float[np.ndarray, " m"],
    medians_a: Float[np.ndarray, " r"],
    medians_b: Float[np.ndarray, " r"],
) -> Ratio:
    medians_a, medians_b = np.maximum(medians_a, LEAST), np.maximum(medians_b, LEAST)
    low, high = np.percentile(medians_a / medians_b, [2.5, 97.5])
    value = float(max(np.median(a), LEAST) / max(np.median(b), LEAST))
    return Ratio(value, float(low), float(high), min(len(a), len(b)))
