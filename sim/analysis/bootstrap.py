"""The paired bootstrap: seeds are drawn again, and every cell sees the same draw.

A seed is a scene; cells that ran it share its difficulty. Drawing whole seeds keeps that, so it
serves differences between cells and curves through many of them alike. Draws are seeded: the same
episodes give the same interval.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sim.statistics import Interval

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaxtyping import Bool, Float64

DRAWS = 4000


def resampled_rates(
    outcomes: Bool[np.ndarray, "seeds cells"], *, draws: int = DRAWS, seed: int = 0
) -> Float64[np.ndarray, "draws cells"]:
    """Success rates of every cell when the seeds are drawn anew, with replacement.

    Raises:
        ValueError: when there is no seed to draw from.
    """
    seeds = len(outcomes)
    if not seeds:
        raise ValueError("no seeds: a bootstrap of nothing is undefined")
    times = np.random.default_rng(seed).multinomial(seeds, np.full(seeds, 1 / seeds), size=draws)
    return times @ outcomes.astype(np.float64) / seeds


def bootstrap_difference(
    treatment: Sequence[bool], reference: Sequence[bool], *, draws: int = DRAWS, seed: int = 0
) -> Interval:
    """Percentile interval, 95 %, of treatment minus reference on the same seeds.

    It has no width when every pair agrees; `sim.statistics.paired_difference` has, so verdicts
    come from there.

    Raises:
        ValueError: when the two do not have the same length, or none.
    """
    pairs = np.array(list(zip(treatment, reference, strict=True)), bool).reshape(-1, 2)
    rates = resampled_rates(pairs, draws=draws, seed=seed)
    low, high = np.quantile(rates[:, 0] - rates[:, 1], (0.025, 0.975))
    return Interval(float(low), float(high))
