"""What a fault looks like from outside: the level and the words of its diagnostic."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from leanvla_ros.diagnostics import checks

from policy.robot.health import Latest, Level
from tests.policy.robot.fakes import Rig

RUNG = SimpleNamespace(method="dense", keep=1.0, warm_ms=1.0, runs_on="onnxruntime cpu fp32")


def seen(rig: Rig) -> dict:
    return {check.name: check for check in checks(rig.session, RUNG, {"a": Latest()}, rig.now_s)}


def running(robot: str = "tabletop", **edits) -> Rig:
    rig = Rig(robot, **edits)
    rig.start()
    for _ in range(12):
        rig.step()
    return rig


def test_all_is_well():
    found = seen(running())
    assert {check.level for check in found.values()} == {Level.OK}
    assert found["inference"].values["engine"] == "onnxruntime cpu fp32"


def test_a_camera_that_was_never_heard_and_one_that_fell_silent_are_told_apart():
    rig = Rig()
    rig.mute = {"agentview"}
    rig.start()
    rig.step()
    never = seen(rig)["camera agentview"]
    assert (never.level, never.message[:11]) == (Level.ERROR, "NotReceived")
    rig = running()
    rig.mute = {"agentview"}
    for _ in range(20):
        rig.step()
    silent = seen(rig)["camera agentview"]
    assert (silent.level, silent.message[:8]) == (Level.ERROR, "Timeout:")
    assert seen(rig)["camera robot0_eye_in_hand"].level == Level.OK
    assert seen(rig)["motion"].message.startswith("safe action: camera agentview")


def test_a_camera_that_slows_down_is_a_warning_and_the_robot_goes_on():
    rig = running()
    for i in range(60):
        rig.mute = set() if i % 4 == 0 else {"agentview"}
        rig.step()
    slow = seen(rig)["camera agentview"]
    assert slow.level == Level.WARN
    assert "5.0 Hz of 20 Hz" in slow.message
    assert seen(rig)["motion"].level == Level.OK


def test_a_missed_deadline_is_a_warning_and_a_fault_an_error():
    rig = running(execution__deadline_ms=100.0)
    while (question := rig.session.ask(rig.now)) is None:
        rig.wait(rig.contract.period_s)
        rig.sense()
        rig.session.tick(rig.now)
    rig.wait(0.2)
    rig.query_answer(question)
    late = seen(rig)["inference"]
    assert (late.level, late.message) == (Level.WARN, "1 deadline(s) missed")
    assert late.values["deadline_misses"] == "1"
    rig.session.stop("the button")
    assert seen(rig)["inference"].level == Level.ERROR


@pytest.mark.parametrize(("field", "new"), [("encoding", "yuv422"), ("step", 7)])
def test_a_picture_that_cannot_be_read_is_named_at_its_camera(field, new):
    rig = running()
    clean = rig.picture

    def spoiled(camera, stamp):
        message = clean(camera, stamp)
        if camera.view == "agentview":
            setattr(message, field, new)
        return message

    rig.picture = spoiled
    for _ in range(20):
        rig.step()
    check = seen(rig)["camera agentview"]
    assert check.level == Level.ERROR
    assert "agentview" in check.values["last_dropped"]
