from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.analysis.recall import correlation, recalls
from sim.rollout.pool import Pool
from sim.rollout.types import Cell, EpisodeRecord, Job, QueryTruth, Source
from sim.rollout.worker import WorkerSpec
from sim.truth import Truth, TruthError, Witness, patches_of
from tests.sim.fakes import FakePolicy
from tests.sim.twin_fakes import SPEC, TruthfulSuite


def episode(seed, outcome, *queries):
    truth = [
        QueryTruth(phase, {"object": shown}, {"object": kept}) for phase, shown, kept in queries
    ]
    return EpisodeRecord(seed, "fastv", 0.25, outcome, truth=truth)


def test_recall_by_hand():
    records = [
        episode(0, "success", ("reach", [4, 0], [3, 0]), ("grasp", [2, 2], [2, 1])),
        episode(1, "failure", ("reach", [4, 0], [1, 0])),
        episode(2, "error", ("reach", [4, 0], [0, 0])),
    ]
    everything, reach, grasp = recalls(records)
    assert (everything.phase, reach.phase, grasp.phase) == ("all", "reach", "grasp")
    assert everything.recall == pytest.approx(7 / 12)
    assert everything.by_view == pytest.approx((6 / 10, 1 / 2))
    assert reach.recall == pytest.approx(4 / 8)
    assert reach.by_view == (0.5, None)
    assert (reach.in_success, reach.in_failure) == (0.75, 0.25)
    assert (grasp.queries, grasp.in_failure) == (1, None)
    assert (reach.correlation, reach.ci95) == (None, None)
    assert reach.withheld == "fewer than 10 episodes: 2"  # two episodes correlate always


def test_recall_goes_with_success_where_it_does():
    rng = np.random.default_rng(0)
    kept = rng.integers(0, 11, 60)
    tied = [episode(i, "success" if k > 5 else "failure", ("a", [10], [int(k)]))
            for i, k in enumerate(kept)]  # fmt: skip
    free = [episode(i, "success" if i % 2 else "failure", ("a", [10], [int(k)]))
            for i, k in enumerate(kept)]  # fmt: skip
    assert recalls(tied)[0].ci95.low > 0.6
    low, high = recalls(free)[0].ci95
    assert low < 0 < high
    assert recalls([]) == []


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), max_size=30))
def test_correlations_are_pearsons_or_withheld(pairs):
    values, success = [v for v, _ in pairs], [s for _, s in pairs]
    found, ci95, why = correlation(values, success)
    if found is None:
        few = len(pairs) < 10 or min(sum(success), len(pairs) - sum(success)) < 3
        assert few or np.ptp(values) < 1e-12
    else:
        assert found == pytest.approx(np.corrcoef(values, success)[0, 1], abs=1e-6)
        assert found == pytest.approx(-correlation(values, [not s for s in success])[0])
    assert bool(why) == (ci95 is None)


@pytest.mark.parametrize(
    ("won", "lost", "why"),
    [
        (3, 0, "fewer than 10 episodes: 3"),
        (5, 4, "fewer than 10 episodes: 9"),
        (20, 2, "fewer than 3 of either outcome: 20 won, 2 lost"),
        (2, 20, "fewer than 3 of either outcome: 2 won, 20 lost"),
    ],
)
def test_a_correlation_of_too_little_is_withheld(won, lost, why):
    values = [0.5 + i / 100 for i in range(won)] + [i / 100 for i in range(lost)]
    assert correlation(values, [True] * won + [False] * lost) == (None, None, why)


def test_draws_without_a_loss_count_as_no_relation():
    """Dropped instead, three losses of ten would give an interval far from zero."""
    values = [0.9, 0.8, 0.85, 0.95, 0.9, 0.8, 0.9, 0.2, 0.1, 0.15]
    found, (low, _), why = correlation(values, [True] * 7 + [False] * 3)
    assert (found > 0.9, low, why) == (True, 0.0, "")
    found, ci95, why = correlation([1.0] * 20 + [0.0] * 20, [True] * 20 + [False] * 20)
    assert (found, ci95) == (pytest.approx(1.0), None)
    assert "no interval" in why


def test_patches_by_hand():
    mask = np.zeros((96, 96), bool)
    mask[8:16, 16:24] = True  # exactly the second row's third patch of 12 x 12
    assert np.flatnonzero(patches_of(mask, 12)).tolist() == [14]
    mask[8:16, 24] = True  # an eighth of its neighbour
    assert np.flatnonzero(patches_of(mask, 12)).tolist() == [14, 15]
    assert np.flatnonzero(patches_of(mask, 12, share=0.2)).tolist() == [14]
    assert not patches_of(np.zeros((96, 96), bool), 12).any()


@given(st.integers(0, 95), st.integers(0, 95), st.sampled_from([7, 12, 16]))
def test_every_pixel_belongs_to_one_patch(row, column, side):
    mask = np.zeros((96, 96), bool)
    mask[row, column] = True
    places = np.flatnonzero(patches_of(mask, side, share=0.0))
    assert len(places) == 1
    assert divmod(places[0], side) == (
        pytest.approx((row + 0.5) * side / 96, abs=1),
        pytest.approx((column + 0.5) * side / 96, abs=1),
    )


def test_a_crop_moves_the_patches_as_the_picture_moves():
    """What lies on the rim is outside a cropped view; the middle stays in the middle."""
    rim, middle = np.zeros((2, 96, 96), bool)
    rim[0], middle[46:50, 46:50] = True, True
    assert patches_of(rim, 12, share=0.01).sum() == 12
    assert not patches_of(rim, 12, 0.9, share=0.01).any()
    for area in (1.0, 0.9):
        assert np.flatnonzero(patches_of(middle, 2, area, share=0.0)).tolist() == [0, 1, 2, 3]


def test_a_witness_follows_the_policys_own_order_of_views():
    class Wrist(FakePolicy):
        observation_spec = SPEC.observation.__class__(views=("wrist", "front"))

    front = np.zeros((96, 96), bool)
    front[:8, :8] = True
    truth = Truth("reach", {"object": (front, np.zeros((96, 96), bool))})
    kept = (np.array([5]), np.array([0, 7]))
    found = Witness(Wrist(), SPEC).compare(truth, kept, 144)
    assert (found.shown, found.kept) == ({"object": [0, 1]}, {"object": [0, 1]})
    with pytest.raises(TruthError, match="no square"):
        Witness(FakePolicy(), SPEC).compare(truth, kept, 143)
    with pytest.raises(TruthError, match="does not say"):
        Witness(FakePolicy(), SPEC.__class__("x", SPEC.observation, SPEC.action, 1, "fast"))


def test_episodes_carry_truth_only_when_asked_and_go_the_same_way():
    suite = Source(f"{TruthfulSuite.__module__}:TruthfulSuite")
    policy = Source("tests.sim.fakes:FakePolicy")
    job = Job(Cell("fastv", 0.25), 1)
    found = []
    for truth in (False, True):
        with Pool(WorkerSpec(suite, policy, truth=truth), 1) as pool:
            found += [done.record for done in pool.run([job])]
    plain, told = found
    assert plain.truth == []
    assert b"truth" not in msgspec.json.encode(plain)
    assert len(told.truth) == len(told.kept)
    assert {query.phase for query in told.truth} == {"reach", "arrive"}
    assert all(query.shown["object"][0] > 0 == query.shown["object"][1] for query in told.truth)
    assert (plain.outcome, plain.steps, plain.kept) == (told.outcome, told.steps, told.kept)
    assert msgspec.json.decode(msgspec.json.encode(told), type=EpisodeRecord) == told
