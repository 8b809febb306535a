from __future__ import annotations

import numpy as np
import pytest

from engines.profile.compare import ComparisonError, compare
from engines.profile.measure import Sample
from engines.profile.statistics import paired_ratio, spread, unpaired_ratio


def samples(cell: str, values) -> list[Sample]:
    return [Sample(cell, i, 0.0, float(ms), float(ms)) for i, ms in enumerate(values)]


def test_spread_orders_its_percentiles():
    found = spread(range(101))
    assert found == {"p50": 50.0, "p95": 95.0, "p99": 99.0, "max": 100.0, "mean": 50.0}
    with pytest.raises(ValueError, match="no values"):
        spread([])


def test_the_paired_interval_covers_the_true_ratio_and_ignores_what_both_suffer():
    draw = np.random.default_rng(0)
    covered, widths = 0, []
    for trial in range(60):
        drift = 1.0 + np.repeat(draw.uniform(0.0, 1.0, 8), 5)  # the machine, the same for both
        below = 10.0 * drift * draw.normal(1.0, 0.02, 40)
        above = 15.0 * drift * draw.normal(1.0, 0.02, 40)
        ratio = paired_ratio(above, below, seed=trial)
        covered += ratio.low <= 1.5 <= ratio.high
        unpaired = unpaired_ratio(above, below, seed=trial)
        widths.append((ratio.high - ratio.low) / (unpaired.high - unpaired.low))
    assert covered >= 52  # 57 expected at 95 %
    assert np.median(widths) < 0.75


def test_paired_needs_pairs():
    with pytest.raises(ValueError, match="as many of each"):
        paired_ratio([1.0], [1.0, 2.0])
    with pytest.raises(ValueError, match="nothing"):
        unpaired_ratio([], [1.0])


def test_the_verdict_follows_the_interval_and_the_tolerance():
    draw = np.random.default_rng(1)
    before = samples("dense", draw.normal(10.0, 0.2, 60)) + samples("old", [1.0])
    for factor, verdict in ((1.2, "slower"), (0.8, "faster"), (1.0, "no difference shown")):
        now = samples("dense", factor * draw.normal(10.0, 0.2, 60)) + samples("new", [1.0])
        (found,) = compare(now, before, 0.03)
        assert (found.cell, found.verdict) == ("dense", verdict)
        assert found.ratio.value == pytest.approx(factor, rel=0.03)
    now = samples("dense", 1.2 * draw.normal(10.0, 0.2, 60))
    assert compare(now, before, 0.3)[0].verdict == "no difference shown"


def test_a_wide_spread_gives_no_verdict():
    draw = np.random.default_rng(2)
    before = samples("a", draw.uniform(5.0, 15.0, 12))
    now = samples("a", draw.uniform(6.0, 16.0, 12))
    assert compare(now, before, 0.0)[0].verdict == "no difference shown"


def test_profiles_without_a_common_cell_cannot_be_compared():
    with pytest.raises(ComparisonError, match="measured here a; there b"):
        compare(samples("a", [1.0]), samples("b", [1.0]), 0.03)
    with pytest.raises(ValueError, match="tolerance"):
        compare(samples("a", [1.0]), samples("a", [1.0]), -0.1)


def test_a_clock_that_ticked_for_nobody_gives_a_finite_ratio_and_a_wide_interval():
    none, some = [0.0] * 8, [0.0, 0.0, 0.0, 0.0, 0.0, 10.0, 10.0, 10.0]
    assert paired_ratio(none, none)[:3] == (1.0, 1.0, 1.0)
    ratio = paired_ratio(some, none)
    assert ratio.low == 1.0
    assert 1.0 <= ratio.value < ratio.high < float("inf")
