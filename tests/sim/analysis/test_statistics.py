from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.analysis.bootstrap import bootstrap_difference, resampled_rates
from sim.analysis.budget import crossing, monotone_losses, token_budgets
from sim.analysis.cells import front
from sim.statistics import Interval, holm, paired_difference, verdict, verdict_in_family

PAIRS = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60)
SIZES = np.array([288.0, 144.0, 72.0, 36.0])


def isotonic(values: list[float]) -> list[float]:
    """Pool adjacent violators, the textbook way."""
    blocks: list[list[float]] = []
    for value in values:
        blocks.append([value])
        while len(blocks) > 1 and np.mean(blocks[-2]) > np.mean(blocks[-1]):
            blocks[-2:] = [blocks[-2] + blocks[-1]]
    return [float(np.mean(block)) for block in blocks for _ in block]


@pytest.mark.parametrize(
    ("interval", "said"),
    [
        ((0.01, 0.2), "better"),
        ((-0.2, -0.01), "worse"),
        ((-0.1, 0.3), "no difference shown"),
        ((0.0, 0.3), "no difference shown"),
        ((-1.0, 1.0), "no difference shown"),
    ],
)
def test_a_verdict_needs_an_interval_without_zero(interval, said):
    assert verdict(Interval(*interval)) == said


def test_a_verdict_of_a_table_needs_the_adjusted_test_too():
    worse = Interval(-0.469, -0.038)
    assert verdict_in_family(worse, 0.049) == "worse"
    assert verdict_in_family(worse, 0.05) == "no difference shown"
    assert verdict_in_family(Interval(-0.1, 0.1), 0.001) == "no difference shown"


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_holm_never_helps_and_keeps_the_order(p_values):
    adjusted = holm(p_values)
    assert all(p <= q <= 1.0 for p, q in zip(p_values, adjusted, strict=True))
    in_order = [adjusted[i] for i in np.argsort(p_values, kind="stable")]
    assert in_order == sorted(in_order)
    assert min(adjusted) == pytest.approx(min(1.0, len(p_values) * min(p_values)))


@given(PAIRS)
def test_the_bootstrap_is_antisymmetric_repeats_and_ignores_the_order(pairs):
    treatment, reference = [t for t, _ in pairs], [r for _, r in pairs]
    there = bootstrap_difference(treatment, reference, draws=500)
    back = bootstrap_difference(reference, treatment, draws=500)
    assert there == bootstrap_difference(treatment, reference, draws=500)
    assert there.low == pytest.approx(-back.high, abs=1e-9)
    assert -1 <= there.low <= there.high <= 1
    if all(t == r for t, r in pairs):
        assert there == (0.0, 0.0)


def test_the_bootstrap_agrees_with_newcombe_where_both_hold():
    treatment = [i % 10 != 0 for i in range(200)]
    reference = [i % 4 != 0 for i in range(200)]
    ours = bootstrap_difference(treatment, reference)
    theirs = paired_difference(treatment, reference).ci95
    assert ours.low == pytest.approx(theirs.low, abs=0.02)
    assert ours.high == pytest.approx(theirs.high, abs=0.02)


def test_cells_of_a_draw_share_its_seeds():
    """Two equal columns must stay equal in every draw: else nothing is paired."""
    one = np.arange(40) % 3 == 0
    rates = resampled_rates(np.column_stack([one, one, ~one]), draws=200)
    np.testing.assert_allclose(rates[:, 0], rates[:, 1])
    np.testing.assert_allclose(rates[:, 0] + rates[:, 2], 1.0)
    assert rates[:, 0].std() == pytest.approx(np.sqrt(one.mean() * (1 - one.mean()) / 40), rel=0.2)


@given(st.lists(st.floats(0, 1), min_size=2, max_size=7))
def test_monotone_losses_are_the_isotonic_fit(rates):
    fit = monotone_losses(np.array([rates]))[0]
    losses = [rates[0] - rate for rate in rates[1:]]
    expected = [max(0.0, value) for value in isotonic(losses)]
    assert fit[0] == 0
    np.testing.assert_allclose(fit[1:], expected, atol=1e-9)


def test_crossings_by_hand():
    losses = np.array([[0.0, 0.02, 0.06, 0.30], [0.0, 0.0, 0.0, 0.04], [0.0, 0.2, 0.2, 0.2]])
    ten = crossing(SIZES, losses, 0.10)
    assert ten[0] == pytest.approx(2 ** (np.log2(72) - 0.04 / 0.24))
    assert ten[1] == 0  # never lost as much
    assert ten[2] == pytest.approx(2 ** (np.log2(288) - 0.5))
    assert crossing(SIZES, losses, 0.02)[0] == pytest.approx(144)


def outcomes(rates: list[float], seeds: int = 100) -> np.ndarray:
    return np.array([[i < rate * seeds for rate in rates] for i in range(seeds)])


def test_a_larger_loss_needs_fewer_tokens_and_intervals_hold_their_estimates():
    one, five, ten = token_budgets(
        outcomes([0.95])[:, 0], outcomes([0.93, 0.85, 0.40]), [144, 72, 36], 288
    )
    assert one.tokens > five.tokens > ten.tokens > 36
    assert ten.tokens == pytest.approx(72)
    for budget in (one, five, ten):
        assert budget.low <= budget.tokens <= budget.high
        assert budget.seeds == 100


def test_what_was_not_reached_is_not_made_up():
    never = token_budgets(outcomes([0.9])[:, 0], outcomes([0.9, 0.9]), [144, 72], 288)
    assert [(b.tokens, b.low, b.high) for b in never] == [(None, None, None)] * 3
    barely = token_budgets(outcomes([0.9])[:, 0], outcomes([0.9, 0.80]), [144, 72], 288)[2]
    assert barely.tokens == pytest.approx(72)
    assert barely.low is None


def test_the_order_of_rungs_does_not_matter_and_nonsense_is_refused():
    dense, rungs = outcomes([0.95])[:, 0], outcomes([0.93, 0.85, 0.40])
    there = token_budgets(dense, rungs, [144, 72, 36], 288)
    assert there == token_budgets(dense, rungs[:, ::-1], [36, 72, 144], 288)
    for tokens in ([], [288], [0]):
        with pytest.raises(ValueError, match="between 0 and 288"):
            token_budgets(dense, rungs[:, : len(tokens)], tokens, 288)


@given(st.lists(st.tuples(st.floats(0, 9), st.floats(0, 1)), min_size=1, max_size=20))
def test_the_front_is_what_nothing_beats(points):
    chosen = front(points)
    gains = [points[i][1] for i in chosen]
    assert gains == sorted(set(gains))
    for i, (cost, gain) in enumerate(points):
        beaten = any(c <= cost and g >= gain and (c, g) != (cost, gain) for c, g in points)
        assert beaten != (i in chosen) or points.count((cost, gain)) > 1
