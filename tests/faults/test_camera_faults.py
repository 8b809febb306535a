"""Cameras that fall silent, freeze, lie about time, or send what nobody can read."""

from __future__ import annotations

import numpy as np
import pytest

from policy.robot.messages import MessageError
from tests.policy.robot.fakes import Rig, image, noise


def moving(robot: str = "tabletop", **edits) -> Rig:
    """A robot in motion."""
    rig = Rig(robot, **edits)
    rig.start()
    outputs = [rig.step() for _ in range(6)]
    assert any(output.command is not None and not output.safe for output in outputs)
    return rig


def run(rig: Rig, seconds: float):
    return [rig.step() for _ in range(round(seconds / rig.contract.period_s))]


def test_a_camera_that_drops_out_stops_the_robot_and_is_named():
    rig = moving()
    rig.mute = {"robot0_eye_in_hand"}
    outputs = run(rig, 1.5)
    stopped = [o for o in outputs if o.safe]
    assert "camera robot0_eye_in_hand: silent for" in stopped[-1].safe
    assert not stopped[-1].command.values.any()
    # Motion ended no later than the camera's maximum age.
    age_s = rig.contract.cameras[1].age.max_ms * 1e-3
    assert len(outputs) - len(stopped) <= age_s / rig.contract.period_s + 2


def test_motion_resumes_only_with_fresh_pictures_of_all_cameras():
    rig = moving()
    rig.mute = {"agentview", "robot0_eye_in_hand"}
    run(rig, 1.5)
    rig.mute = {"agentview"}
    assert all(o.safe for o in run(rig, 0.5))
    rig.mute = set()
    assert not run(rig, 0.5)[-1].safe


def test_a_slow_camera_is_noticed_and_the_robot_goes_on():
    rig = moving()
    outputs = []
    for i in range(60):
        rig.wait(rig.contract.period_s)
        if i % 4 == 0:
            rig.sense()
            rig.query()
        outputs.append(rig.session.tick(rig.now))
    assert rig.session.senses.rates["agentview"].hz() == pytest.approx(5.0, abs=0.2)
    assert not any(o.safe for o in outputs)


def test_a_frozen_camera_is_a_fault_where_the_contract_says_so():
    rig = moving(cameras__0__frozen_s=0.5, execution__deadline_ms=500.0)
    still = noise(rig.contract.cameras[0], 7)
    rig.picture = lambda camera, stamp: image(
        camera, stamp, still if camera.view == "agentview" else None
    )
    stopped = ""
    for _ in range(40):
        rig.wait(rig.contract.period_s)
        rig.sense()
        question = rig.session.ask(rig.now)
        if question is not None:
            try:
                rig.session.look(question)
                rig.query_answer(question)
            except MessageError as error:
                rig.session.failed(question, error, rig.now)
        stopped = rig.session.tick(rig.now).safe
    assert "camera agentview: the same picture for" in stopped
    assert rig.session.ledger.counters["observation_dropped"] > 0


def test_equal_pictures_are_no_fault_where_the_contract_allows_them():
    rig = Rig()
    rig.picture = lambda camera, stamp: image(camera, stamp, noise(camera, 7))
    rig.start()
    assert not run(rig, 3.0)[-1].safe


@pytest.mark.parametrize(
    ("shift_s", "says"),
    [
        (-2.0, "is 2000 ms old, at most 500 ms"),
        (5.0, "is 5000 ms in the future, at most 60 ms are allowed: synchronise the clocks"),
        (None, "has no stamp: set header.stamp at the source"),
    ],
)
def test_a_stamp_that_is_old_future_or_zero_is_dropped_and_counted(shift_s, says):
    rig = moving()
    chunks = rig.session.ledger.counters["chunks"]
    for _ in range(30):
        rig.wait(rig.contract.period_s)
        rig.sense(0.0 if shift_s is None else rig.now_s + shift_s)
        assert not rig.query()
        output = rig.session.tick(rig.now)
    assert says in rig.session.ledger.notes["image"]
    assert rig.session.ledger.counters["image_dropped"] == 60
    assert rig.session.ledger.counters["chunks"] == chunks
    assert output.safe


def test_unstamped_pictures_are_taken_where_the_contract_says_so():
    rig = Rig(allow_unstamped=True)
    rig.start()
    for _ in range(10):
        rig.wait(rig.contract.period_s)
        rig.sense(0.0)
        rig.query()
        output = rig.session.tick(rig.now)
    assert output.command is not None
    assert not output.safe


def test_cameras_out_of_sync_are_never_paired_and_the_skew_is_told():
    rig = moving()
    outputs = []
    for _ in range(30):
        rig.wait(rig.contract.period_s)
        rig.mute = {"agentview"}
        rig.sense()
        rig.mute = {"robot0_eye_in_hand"}
        rig.sense(rig.now_s - 0.025 - rig.contract.period_s * 3)
        rig.mute = set()
        rig.query()
        outputs.append(rig.session.tick(rig.now))
    assert "ms apart, allowed are 20 ms: synchronise" in outputs[-1].safe


@pytest.mark.parametrize(
    ("field", "new", "says"),
    [
        ("encoding", "yuv422", "'yuv422' is not accepted; accepted: rgb8"),
        ("encoding", "bayer_rggb8", "accepted: rgb8"),
        ("data", b"", "0 bytes of data"),
        ("step", 287, "step 287 is below a row of 288"),
        ("height", 95, "frame is 96 x 95"),
    ],
)
def test_pictures_that_cannot_be_read_are_refused_by_name_at_the_first(field, new, says):
    rig = Rig()

    def picture(camera, stamp):
        message = image(camera, stamp)
        setattr(message, field, new)
        return message

    rig.picture = picture
    rig.start()
    outputs = run(rig, 0.3)
    assert says in rig.session.ledger.notes["image"]
    assert all(output.command is None for output in outputs)


def test_numbers_that_are_not_finite_never_reach_the_policy():
    rig = moving()
    rig.hand[1] = float("nan")
    assert run(rig, 1.0)[-1].safe.startswith("state /eef_pose: silent")
    assert rig.session.ledger.notes["state"] == "/eef_pose: not finite: eef_y [m]"
    assert np.isnan(rig.hand[1])


def test_a_joint_that_vanishes_from_the_message_stops_the_robot():
    rig = moving("so101")
    whole = rig.measure
    rig.measure = lambda source, stamp: _without(whole(source, stamp), "elbow_flex")
    assert run(rig, 1.0)[-1].safe.startswith("state /joint_states: silent")
    assert "'elbow_flex' stands there 0 times" in rig.session.ledger.notes["state"]


def _without(message, joint):
    index = message.name.index(joint)
    for values in (message.name, message.position, message.velocity):
        del values[index]
    return message
