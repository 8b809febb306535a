"""Pairing, ages, watchdog and health: the small parts, by themselves."""

from __future__ import annotations

import pytest

from policy.contract import Age
from policy.robot.ages import age_fault
from policy.robot.frozen import FrozenWatch
from policy.robot.health import Latest, Rate
from policy.robot.pairing import RING, Pairing, Stamped
from policy.robot.watchdog import Watchdog
from tests.policy.robot.fakes import changed, contract, noise

AGE = Age(max_ms=100.0, ahead_ms=10.0)


@pytest.mark.parametrize(
    ("stamp_s", "says"),
    [(10.0, None), (9.901, None), (9.89, "110 ms old"), (10.009, None), (10.02, "in the future")],
)
def test_ages_are_checked_on_both_sides(stamp_s, says):
    fault = age_fault(stamp_s, 10.0, AGE)
    assert (fault is None) if says is None else (says in fault)


def test_an_unset_stamp_is_a_fault_of_its_own():
    assert "no stamp" in age_fault(0.0, 10.0, AGE)
    assert age_fault(0.0, 10.0, AGE, allow_unstamped=True) is None


def paired(offsets, now=50.0):
    pairing = Pairing(contract())
    views = [camera.view for camera in pairing.contract.cameras]
    for view, offset in zip(views, offsets, strict=True):
        assert pairing.image(view, Stamped(now + offset, now, view)) is None
    for source in pairing.contract.state:
        for i in range(3):
            pairing.state(source.topic, Stamped(now - 0.010 + 0.005 * i, now, i))
    return pairing


def test_pictures_are_paired_within_tolerance_and_with_the_nearest_state():
    pairing = paired((0.0, -0.010))
    assert pairing.slot.stamp_s == 50.0
    assert pairing.slot.skew_ms == pytest.approx(10.0)
    assert [seen.message for seen in pairing.slot.states] == [1, 1]  # 5 ms before the newer one
    assert paired((0.0, -0.030)).slot is None


def test_the_slot_keeps_the_newest_complete_set_until_there_is_a_newer_one():
    pairing = paired((0.0, 0.0))
    first = pairing.slot
    view, other = (camera.view for camera in pairing.contract.cameras)
    pairing.image(view, Stamped(50.05, 50.05, "new"))
    assert pairing.slot is first  # the other camera has not answered yet
    topics = [source.topic for source in pairing.contract.state]
    pairing.image(other, Stamped(50.05, 50.05, "new"))
    for topic in topics:
        pairing.state(topic, Stamped(50.05, 50.05, "new"))
    assert pairing.slot.stamp_s == 50.05
    assert pairing.image(view, Stamped(50.05, 50.06, "again")) == "is not newer than the one before"


def test_memory_of_the_state_is_bounded():
    pairing = Pairing(changed(contract(), "state.0.age.max_ms", 1e9))
    topic = pairing.contract.state[0].topic
    for i in range(10 * RING):
        pairing.state(topic, Stamped(1.0 + i * 1e-3, 1.0 + i * 1e-3, i))
    assert len(pairing.rings[topic]) == RING


def test_every_silent_source_is_named():
    pairing = Pairing(contract())
    assert pairing.missing(1.0) == [
        "camera agentview: nothing received",
        "camera robot0_eye_in_hand: nothing received",
        "state /eef_pose: nothing received",
        "state /joint_states: nothing received",
    ]


def test_the_watchdog_counts_a_missed_deadline_once_and_then_a_hang():
    dog = Watchdog(0.1, 1.0)
    assert dog.check(0.0) == "idle"
    number = dog.begin(10.0)
    assert [dog.check(t) for t in (10.05, 10.2, 10.3, 11.5)] == ["ok", "late", "late", "hung"]
    assert dog.missed == 1
    assert not dog.end(number, 11.6)
    number = dog.begin(12.0)
    assert not dog.end(number - 1, 12.05)  # another question's answer
    assert dog.end(number, 12.05)
    assert dog.check(99.0) == "idle"


def test_two_equal_frames_are_a_coincidence_and_many_are_a_frozen_camera():
    camera = changed(contract().cameras[0], "frozen_s", 0.35)
    watch, still = FrozenWatch(), noise(contract().cameras[0], 1)
    faults = [watch.look(camera, still, 0.1 * i) for i in range(6)]
    assert faults[:4] == [None] * 4
    assert "the same picture for 0.5 s" in faults[-1]
    assert watch.look(camera, noise(camera, 2), 0.6) is None
    assert watch.look(camera, still, 0.7) is None


def test_rates_and_percentiles():
    rate = Rate()
    assert rate.hz() == 0.0
    for i in range(20):
        rate.add(0.1 * i)
    assert rate.hz() == pytest.approx(10.0)
    latest = Latest()
    assert latest.percentile(0.5) == 0.0
    for i in range(1000):
        latest.add(i)
    assert len(latest.values) == 512
    assert latest.percentile(0.99) > latest.percentile(0.5)
