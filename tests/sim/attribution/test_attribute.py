"""Episodes that are lost where we know it, and the search that must find it."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from leanvla.report.attribution import sentences
from sim.attribution.attribute import attribute
from sim.attribution.bisect import Vote, turning_point, vote
from sim.attribution.divergence import action_gap, divergence
from sim.attribution.lab import Actor, AttributionError, Lab, Trial
from sim.rollout.types import EpisodeRecord, Source
from tests.sim.twin_fakes import (
    FREEZES,
    JUMPS,
    SPEC,
    STICKS,
    WRONG_QUERY,
    CliffPolicy,
    CliffSuite,
    OneWaySuite,
)

SEED = 5
SUITE = Source(f"{CliffSuite.__module__}:CliffSuite")


@pytest.fixture(scope="module")
def lab():
    with Lab(SUITE, SEED, noise=0.002) as lab:
        yield lab


def actor(method, keep=0.25):
    return Actor(method, CliffPolicy(method, keep), SPEC)


def record(method, **more):
    return EpisodeRecord(SEED, method, 0.25, "failure", init_state_hash=f"{SEED:08x}", **more)


def test_the_query_from_which_there_is_no_return_is_found(lab):
    views = actor(JUMPS), actor("dense", 1.0)
    found = attribute(lab, record(JUMPS), actor("dense", 1.0), actor(JUMPS), views)
    assert found.kind == "no_return"
    assert (found.query, found.step, found.until_step) == (
        WRONG_QUERY,
        2 * WRONG_QUERY,
        2 * WRONG_QUERY + 2,
    )
    assert found.phase == "reach"
    assert found.culprits == ("front",)
    assert [view.vote.wins for view in found.views] == [0, 5]
    assert found.views[0].shown["object"] > found.views[0].kept["object"]
    assert found.gap == pytest.approx(0.42)
    assert found.divergence.decision_step == 2 * WRONG_QUERY
    by_index = {one.moment: one for one in found.turning.votes}
    assert by_index[WRONG_QUERY].wins == by_index[WRONG_QUERY].trials == 5
    assert by_index[WRONG_QUERY + 1].wins == 0
    assert len(found.moments) == 2


def test_a_stall_is_told_from_a_loss_and_found_on_the_dense_path(lab):
    found = attribute(lab, record(FREEZES), actor("dense", 1.0), actor(FREEZES))
    assert found.kind == "stalled"
    assert found.query == 4  # the last dense query that begins inside the stretch 0.1 ... 0.19
    assert found.views[0].vote is None
    assert found.culprits == ()
    assert found.mended is None
    assert found.pruned_steps == 40 > found.dense_steps


def test_a_stall_that_noise_mends_is_told_and_found_on_the_undisturbed_course(lab):
    found = attribute(lab, record(STICKS), actor("dense", 1.0), actor(STICKS))
    assert (found.kind, found.query, found.step) == ("stalled", 4, 8)
    assert found.mended.won
    assert not found.mended.undisturbed
    assert {one.trials for one in found.turning.votes} == {1}
    assert any("A little noise" in sentence for sentence in sentences(record(STICKS), found))


def test_what_cannot_be_attributed_is_refused(lab):
    dense = actor("dense", 1.0)
    with pytest.raises(AttributionError, match="succeeds now"):
        attribute(lab, record(FREEZES), dense, actor("dense"))
    with pytest.raises(AttributionError, match="dense fails on this seed"):
        attribute(lab, record(FREEZES), actor(FREEZES), actor(FREEZES))
    with pytest.raises(AttributionError, match="another version"):
        attribute(lab, replace(record(FREEZES), init_state_hash="ff"), dense, actor(FREEZES))


def test_a_suite_that_cannot_go_back_is_walked_through_all_the_same(lab):
    dense, pruned = actor("dense", 1.0), actor(JUMPS)
    with Lab(Source(f"{OneWaySuite.__module__}:OneWaySuite"), SEED) as one_way:
        ours, theirs = one_way.walk(pruned, film=96), one_way.walk(dense)
        found = divergence(ours, theirs, dense, one_way.suite)
        refused = "fake cannot save a running episode.*a run of tabletop"
        with pytest.raises(AttributionError, match=refused):
            attribute(one_way, record(JUMPS), dense, pruned)
        for back in (partial(one_way.photograph, size=96), one_way.truth_at):
            with pytest.raises(AttributionError, match=refused):
                back(theirs.checkpoints[1])
    assert {moment.saved for walk in (ours, theirs) for moment in walk.checkpoints} == {None}
    assert len(ours.frames) > 1
    assert found == divergence(lab.walk(pruned), lab.walk(dense), dense, SPEC)
    assert (found.decision_step, found.path_step) == (2 * WRONG_QUERY, 2 * WRONG_QUERY + 2)


def test_trials_repeat_and_share_their_noise(lab):
    dense = actor("dense", 1.0)
    start = lab.walk(dense).checkpoints[2]
    for number in range(3):
        assert lab.trial(start, dense, number, 40) == lab.trial(start, dense, number, 40)
    assert lab.trial(start, dense, 0, 40) == Trial(True, lab.walk(dense).steps - start.step)
    assert lab.trial(start, dense, 0, 3) == Trial(False, 3)


@given(
    st.integers(1, 60).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n))), st.booleans()
)
def test_halving_finds_every_turning_point(case, starts_won):
    count, turn = case
    asked = []

    def ask(index, whole):
        asked.append(index)
        return Vote(index, 5 * ((index < turn) == starts_won), 5, True, 0)

    found = turning_point(count, ask, starts_won=starts_won)
    assert found.last == (turn - 1 if 0 < turn < count else None)
    assert len(set(asked)) <= 2 + np.ceil(np.log2(max(count, 2)))
    assert [one.moment for one in found.votes] == sorted({one.moment for one in found.votes})


@given(st.lists(st.booleans(), min_size=5, max_size=5))
def test_a_vote_stops_at_its_majority_and_never_changes_it(wins):
    ran = []

    def run(number):
        ran.append(number)
        return Trial(wins[number], 1)

    quick, whole = vote(0, run, 5, 9), vote(0, run, 5, 9, whole=True)
    assert quick.won == whole.won == (sum(wins) > 2)
    assert whole.wins == sum(wins)
    assert whole.undisturbed == wins[0]
    assert whole.in_time == whole.wins
    assert vote(0, run, 5, 0, whole=True).in_time == 0
    low, high = whole.ci95
    assert low <= whole.wins / 5 <= high


def test_a_gripper_counts_when_it_turns():
    ours = np.array([[0.1, 0.9], [0.2, 0.8]], np.float32)
    theirs = np.array([[0.1, 0.2], [0.3, 0.1], [9.0, 9.0]], np.float32)
    assert action_gap(ours, theirs, grips=True) == pytest.approx(0.1)
    theirs[0, 1] = -0.2
    assert action_gap(ours, theirs, grips=True) == pytest.approx(1.1)
    assert action_gap(ours, theirs, grips=False) == pytest.approx(1.1)
