"""The small statistics of a benchmark: intervals that stay honest at twenty episodes.

Every interval here is of score type: it never collapses to zero width when all episodes succeed,
and never leaves the possible range. Both are closed formulas, so that a report can be repeated.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

Z95 = 1.959963984540054
BETTER, WORSE, UNDECIDED = "better", "worse", "no difference shown"
ALPHA = 0.05


class Interval(NamedTuple):
    """A two-sided 95 % interval."""

    low: float
    high: float


class PairedDifference(NamedTuple):
    """How much a treatment changes a success rate on the same seeds.

    Attributes:
        difference: treatment minus reference, in [-1, 1].
        ci95: Newcombe's interval for paired proportions.
        n: seeds on which both finished.
        gained: seeds that only the treatment solved.
        lost: seeds that only the reference solved.
        p_value: exact two-sided McNemar test of "no difference".
    """

    difference: float
    ci95: Interval
    n: int
    gained: int
    lost: int
    p_value: float


def wilson_interval(successes: float, n: int) -> Interval:
    """Wilson's 95 % score interval of a proportion (Wilson 1927).

    Args:
        successes: episodes that succeeded.
        n: episodes that were judged; with 0 nothing is known and the interval is [0, 1].

    Raises:
        ValueError: when `successes` does not lie in [0, n].
    """
    if not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n} episodes is impossible")
    if n == 0:
        return Interval(0.0, 1.0)
    rate, z2 = successes / n, Z95 * Z95
    centre = (rate + z2 / (2 * n)) / (1 + z2 / n)
    half = Z95 / (1 + z2 / n) * math.sqrt(rate * (1 - rate) / n + z2 / (4 * n * n))
    low = 0.0 if successes == 0 else centre - half
    high = 1.0 if successes == n else centre + half
    return Interval(low, high)


def paired_difference(treatment: Sequence[bool], reference: Sequence[bool]) -> PairedDifference:
    """Difference of two success rates measured on the same seeds.

    The interval is method 10 of Newcombe (Statistics in Medicine 17, 1998, 2635-2650): the two
    Wilson intervals, joined by squaring and adding, less what the pairing explains. A bootstrap
    gives [0, 0] when every pair agrees; this does not pretend to know that much.

    Args:
        treatment: success per seed.
        reference: success on the same seeds, in the same order.

    Raises:
        ValueError: when the two do not have the same length.
    """
    pairs = list(zip(treatment, reference, strict=True))
    n = len(pairs)
    if n == 0:
        return PairedDifference(0.0, Interval(-1.0, 1.0), 0, 0, 0, 1.0)
    both = sum(t and r for t, r in pairs)
    gained = sum(t and not r for t, r in pairs)
    lost = sum(r and not t for t, r in pairs)
    neither = n - both - gained - lost
    difference = (gained - lost) / n
    interval = _newcombe(both, gained, lost, neither)
    return PairedDifference(difference, interval, n, gained, lost, mcnemar_p(gained, lost))


def mcnemar_p(gained: int, lost: int) -> float:
    """Exact two-sided McNemar test: are the discordant pairs split like a fair coin?"""
    n = gained + lost
    tail = sum(math.comb(n, k) for k in range(min(gained, lost) + 1))
    return min(1.0, 2.0 * tail / 2**n)


def verdict(interval: Interval) -> str:
    """What an interval of a difference allows to say; one that holds zero allows nothing."""
    if interval.low > 0:
        return BETTER
    return WORSE if interval.high < 0 else UNDECIDED


def verdict_in_family(interval: Interval, p_holm: float) -> str:
    """What a table of differences allows to say of one of them.

    A word needs both: an interval of this difference without zero, and an exact test that still
    rejects when all differences of the table are tested together.

    Args:
        interval: of the difference.
        p_holm: its McNemar p, as `holm` gives it for the whole table.
    """
    return verdict(interval) if p_holm < ALPHA else UNDECIDED


def holm(p_values: Sequence[float]) -> list[float]:
    """P values of a family of tests, each against the whole family (Holm 1979), in the same order.

    A table of twenty cells shows one difference at 5 % by chance alone; these do not.
    """
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted, least = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(order):
        least = max(least, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = least
    return adjusted


def percentile(values: Sequence[float], q: float) -> float:
    """The `q`-th percentile (0 to 100), linear between neighbours.

    Raises:
        ValueError: for no values at all.
    """
    if not values:
        raise ValueError("no values: a percentile of nothing is undefined")
    ordered = sorted(values)
    position = (len(ordered) - 1) * q / 100
    below = math.floor(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (position - below)


def _newcombe(both: int, gained: int, lost: int, neither: int) -> Interval:
    n = both + gained + lost + neither
    rate_t, rate_r = (both + gained) / n, (both + lost) / n
    low_t, high_t = wilson_interval(both + gained, n)
    low_r, high_r = wilson_interval(both + lost, n)
    phi = _phi(both, gained, lost, neither)
    difference = rate_t - rate_r
    down = _join(rate_t - low_t, high_r - rate_r, phi)
    up = _join(high_t - rate_t, rate_r - low_r, phi)
    return Interval(max(-1.0, difference - down), min(1.0, difference + up))


def _join(a: float, b: float, phi: float) -> float:
    return math.sqrt(max(0.0, a * a - 2 * phi * a * b + b * b))


def _phi(both: int, gained: int, lost: int, neither: int) -> float:
    """Correlation of the pairs, with the continuity correction that method 10 asks for."""
    margins = (both + gained) * (lost + neither) * (both + lost) * (gained + neither)
    if margins == 0:
        return 0.0
    product = float(both * neither - gained * lost)
    if product > 0:
        product = max(product - (both + gained + lost + neither) / 2, 0.0)
    return product / math.sqrt(margins)
