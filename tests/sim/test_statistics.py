from __future__ import annotations

import math
import random
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.statistics import mcnemar_p, paired_difference, percentile, wilson_interval

OUTCOMES = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60)


def split(pairs):
    return [t for t, _ in pairs], [r for _, r in pairs]


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662),  # Newcombe 1998, table I, method 3
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_gives_the_published_intervals(successes, n, low, high):
    assert wilson_interval(successes, n) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_solves_its_own_equation(case):
    """The interval's ends are the rates whose score test of the observed rate is just refused."""
    successes, n = case
    low, high = wilson_interval(successes, n)
    observed = successes / n
    assert 0.0 <= low <= observed <= high <= 1.0
    for end in (low, high):
        if 0.0 < end < 1.0:
            score = abs(observed - end) / math.sqrt(end * (1 - end) / n)
            assert score == pytest.approx(1.959964, rel=1e-5)


def test_wilson_of_nothing_knows_nothing_and_nonsense_is_refused():
    assert wilson_interval(0, 0) == (0.0, 1.0)
    with pytest.raises(ValueError, match="21 successes of 20"):
        wilson_interval(21, 20)


@given(OUTCOMES)
def test_the_paired_difference_is_antisymmetric_and_holds_its_estimate(pairs):
    treatment, reference = split(pairs)
    there, back = paired_difference(treatment, reference), paired_difference(reference, treatment)
    assert there.difference == pytest.approx(
        sum(treatment) / len(pairs) - sum(reference) / len(pairs)
    )
    assert there.difference == pytest.approx(-back.difference)
    assert there.ci95.low == pytest.approx(-back.ci95.high)
    assert -1.0 <= there.ci95.low <= there.difference + 1e-12
    assert there.difference - 1e-12 <= there.ci95.high <= 1.0
    assert (there.gained, there.lost) == (back.lost, back.gained)


def test_full_agreement_is_not_certainty():
    ci = paired_difference([True] * 20, [True] * 20).ci95
    assert ci.low == pytest.approx(-ci.high)
    assert 0.1 < ci.high < 0.2


@pytest.mark.parametrize(("base", "flip"), [(0.9, 0.1), (0.5, 0.3), (0.95, 0.02)])
def test_the_paired_interval_covers_the_truth(base, flip):
    """Simulated pairs: reference succeeds at `base`; treatment disagrees where `flip` says so."""
    rng = random.Random(0)
    truth, n, rounds, covered = -flip * (2 * base - 1), 50, 1500, 0
    for _ in range(rounds):
        reference = [rng.random() < base for _ in range(n)]
        treatment = [r != (rng.random() < flip) for r in reference]
        ci = paired_difference(treatment, reference).ci95
        covered += ci.low <= truth <= ci.high
    assert covered / rounds >= 0.93


def test_pairing_narrows_what_moves_together():
    easy = [i % 2 == 0 for i in range(100)]
    together = paired_difference(easy, easy).ci95
    apart = paired_difference(easy, [not e for e in easy]).ci95
    assert together.high - together.low < (apart.high - apart.low) / 3


def test_unequal_lengths_are_refused_and_no_pairs_know_nothing():
    with pytest.raises(ValueError, match="longer"):
        paired_difference([True], [True, False])
    assert paired_difference([], []).ci95 == (-1.0, 1.0)


@pytest.mark.parametrize(
    ("gained", "lost", "p"), [(0, 0, 1.0), (0, 5, 0.0625), (1, 9, 22 / 1024), (5, 5, 1.0)]
)
def test_mcnemar_is_the_binomial_test(gained, lost, p):
    assert mcnemar_p(gained, lost) == pytest.approx(p)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=50), st.floats(0, 100))
def test_percentiles_are_numpys(values, q):
    assert percentile(values, q) == pytest.approx(float(np.percentile(values, q)), abs=1e-6)


def test_a_percentile_of_nothing_is_refused():
    with pytest.raises(ValueError, match="no values"):
        percentile([], 50)
    assert all(a <= b for a, b in pairwise(percentile([3, 1, 2], q) for q in range(0, 101, 10)))
