"""The guard lets nothing pass that its contract does not allow, and goes on alone."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from policy.robot.commands import Trajectory, Twist, halt, zero_twist
from policy.robot.guard import Guard, Measured
from policy.robot.trajectory import encode
from tests.policy.robot.fakes import contract

HAND = np.array([0.0, 0.0, 1.0])
SEEN = Measured(None, HAND)
HOME = np.array([0.1, 0.2, 0.3, 0.4, 0.5])
ARM = Measured(HOME, None)


def twist(x: float, now: float, frame: str = "world", **axes: float) -> Twist:
    values = np.zeros(6)
    values[0] = x
    return Twist(now, frame, values)


class Bench:
    """A guard in time."""

    def __init__(self, robot: str = "tabletop") -> None:
        self.contract = contract(robot)
        self.guard = Guard(self.contract)
        self.state, self.now, self.seen = self.guard.initial(), 50.0, SEEN

    def give(self, command, publishers=1):
        self.state, out = self.guard.judge(self.state, command, self.seen, self.now, publishers)
        return out

    def pass_time(self, seconds: float):
        outs = []
        for _ in range(round(seconds / self.contract.period_s)):
            self.now += self.contract.period_s
            self.state, out = self.guard.tick(self.state, self.seen, self.now)
            outs.append(out)
        return outs

    def step(self, x: float):
        self.now += self.contract.period_s
        return self.give(twist(x, self.now))


def test_good_commands_pass_unchanged():
    bench = Bench()
    for x in (0.1, 0.2, 0.3, 0.2):
        bench.now += 0.05
        command = twist(x, bench.now)
        assert bench.give(command) is command
    assert bench.state.mode == "pass"


BAD = {
    "age": lambda b: twist(0.1, b.now - 0.3),
    "age future": lambda b: twist(0.1, b.now + 1.0),
    "age zero": lambda b: twist(0.1, 0.0),
    "finite": lambda b: twist(float("nan"), b.now),
    "finite inf": lambda b: twist(float("inf"), b.now),
    "frame": lambda b: twist(0.1, b.now, "elsewhere"),
    "limit": lambda b: twist(1.1, b.now),
    "kind": lambda b: encode(b.now, ("a",), np.zeros((1, 1)), 0.05),
}


@pytest.mark.parametrize("cause", BAD)
def test_a_bad_command_is_replaced_by_the_safe_action(cause):
    bench = Bench()
    bench.step(0.1)
    bench.now += 0.05
    out = bench.give(BAD[cause](bench))
    assert out.still
    assert bench.state.mode == "safe"
    assert bench.state.causes == {cause.partition(" ")[0]: 1}
    assert bench.step(0.1) is not None  # and one good command is enough to go on
    assert bench.state.mode == "pass"


def test_two_publishers_are_refused_whoever_speaks():
    bench = Bench()
    out = bench.give(twist(0.1, bench.now), publishers=2)
    assert out.still
    assert "2 publishers on /leanvla/command: one may command" in bench.state.reason


def test_a_leap_in_speed_breaks_acceleration_or_jerk():
    bench = Bench("ur5e_servo")
    bench.seen = Measured(None, np.array([0.0, -0.5, 0.3]))
    bench.now += 0.2
    assert bench.give(twist(0.05, bench.now, "base")).values[0] == 0.05
    bench.now += 0.2
    out = bench.give(twist(-0.25, bench.now, "base"))
    assert out.still
    assert "acceleration of linear x is -1.5, limit 1.25" in bench.state.reason


def test_the_workspace_is_held_against_the_guards_own_measurement():
    bench = Bench()
    bench.seen = Measured(None, np.array([0.35, 0.0, 1.0]))
    assert bench.step(0.5).still
    assert "would leave the workspace" in bench.state.reason
    assert bench.step(-0.5).values[0] == -0.5
    bench.seen = Measured(None, None)
    assert bench.step(-0.4).still
    assert "/eef_pose is silent" in bench.state.reason


@pytest.mark.parametrize("robot", ["tabletop", "so101"])
def test_a_guard_that_cannot_see_keeps_the_robot_safe_without_latching(robot):
    bench = Bench(robot)
    for seen, mode in ((Measured(), "safe"), (Measured(HOME, HAND), "pass")):
        bench.seen = seen
        for _ in range(3 * bench.contract.command.latch_after):
            bench.now += bench.contract.period_s
            arm = robot == "so101"
            bench.give(arm_command(bench, 0.0) if arm else twist(0.1, bench.now))
            assert bench.state.mode == mode
    assert bench.state.causes == {"blind": 3 * bench.contract.command.latch_after}


def test_silence_is_a_fault_and_the_safe_action_goes_on():
    bench = Bench()
    bench.step(0.3)
    outs = bench.pass_time(1.0)
    assert outs[:4] == [None] * 4
    assert all(out.still for out in outs[5:])
    assert bench.state.mode == "safe"
    assert bench.state.faults == 1  # one silence is one fault, however long
    assert "no command for" in bench.state.reason


def test_before_the_first_command_the_robot_belongs_to_others():
    bench = Bench()
    assert bench.pass_time(2.0) == [None] * 40
    assert bench.state.mode == "idle"


def test_faults_in_a_row_latch_until_reset():
    bench = Bench()
    bench.step(0.1)
    for _ in range(bench.contract.command.latch_after):
        bench.now += 0.05
        bench.give(twist(float("nan"), bench.now))
    assert bench.state.mode == "latched"
    assert bench.step(0.1) is None  # good commands no longer help
    assert all(out.still for out in bench.pass_time(0.5))
    bench.state = bench.guard.reset(bench.state)
    assert bench.step(0.1).values[0] == 0.1


def test_stop_latches_at_once_and_stopping_is_always_allowed():
    bench = Bench()
    for x in (0.5, 1.0):
        bench.step(x)
    bench.now += 0.05
    assert bench.give(zero_twist(bench.now, "world")).still
    assert bench.state.mode == "pass"
    bench.state = bench.guard.stop(bench.state, "button", SEEN)
    assert bench.step(0.1) is None


def test_more_commands_than_periods_are_a_fault():
    bench = Bench()
    bench.now += 0.05
    outs = [bench.give(twist(0.1, bench.now)) for _ in range(3)]
    assert [out.still for out in outs] == [False, False, True]
    assert "more than 2 commands in one period" in bench.state.reason
    bench = Bench()
    bench.now += 0.05
    outs = [bench.give(twist(x, bench.now)) for x in (0.1, 0.1, 0.0, 0.0)]
    assert bench.state.mode == "pass"  # but stopping may come at any time
    assert outs[-1].still


def test_a_clock_that_jumps_back_voids_stamps_not_the_watch_over_silence():
    bench = Bench()
    bench.step(0.1)
    bench.now -= 40.0
    bench.state = bench.guard.forget_time(bench.state)
    assert bench.pass_time(0.2) == [None] * 4
    assert bench.pass_time(1.0)[-1].still


def arm_command(bench, offset, rows=3):
    points = np.array([HOME + offset * (i + 1) for i in range(rows)])
    return encode(bench.now, bench.contract.command.joints, points, bench.contract.period_s)


def test_trajectories_pass_and_hold_where_the_joints_were_measured():
    bench = Bench("so101")
    bench.seen = ARM
    assert bench.give(arm_command(bench, 0.0005)) is not None
    assert bench.state.mode == "pass"
    outs = bench.pass_time(1.0)
    np.testing.assert_allclose(outs[-1].positions, HOME[None])
    bench.seen = Measured(HOME - 0.1, None)
    np.testing.assert_allclose(bench.pass_time(0.1)[-1].positions, HOME[None])


@pytest.mark.parametrize(
    ("edit", "cause"),
    [
        ({"joints": ("x", "y", "z", "u", "v")}, "trajectory"),
        ({"times_s": np.array([0.1, 0.2, 0.3])}, "trajectory"),
        ({"velocities": np.ones((3, 5))}, "trajectory"),
        ({"positions": np.full((3, 5), np.nan)}, "finite"),
        ({"positions": HOME + np.arange(3)[:, None] + 1.0}, "limit"),
        ({"positions": np.full((3, 5), 5.0)}, "limit"),
    ],
)
def test_bad_trajectories_become_the_safe_action(edit, cause):
    bench = Bench("so101")
    bench.seen = ARM
    bench.give(arm_command(bench, 0.0005))
    bench.now += bench.contract.period_s
    out = bench.give(dataclasses.replace(arm_command(bench, 0.0005), **edit))
    np.testing.assert_allclose(out.positions, HOME[None])
    assert bench.state.causes == {cause: 1}


def test_joints_in_another_order_are_not_guessed():
    bench = Bench("so101")
    bench.seen = ARM
    good = arm_command(bench, 0.0005)
    bench.give(dataclasses.replace(good, joints=good.joints[::-1]))
    assert "joints are in the order wrist_roll" in bench.state.reason


def test_without_measured_joints_nothing_passes_but_a_halt():
    bench = Bench("so101")
    bench.seen = Measured()
    out = bench.give(arm_command(bench, 0.0005))
    assert len(out.times_s) == 0
    assert "/joint_states is silent" in bench.state.reason
    bench.state = bench.guard.reset(bench.state)
    assert bench.give(halt(bench.now, bench.contract.command.joints)) is not None
    assert bench.state.mode == "pass"


def grip(now, position, joint="finger_joint1"):
    return Trajectory(now, (joint,), np.array([0.4]), np.array([[position]]), np.zeros((1, 1)))


def test_the_gripper_is_guarded_too():
    bench = Bench()
    fault = lambda command, publishers=1: bench.guard.gripper_fault(  # noqa: E731
        bench.state, command, bench.now, publishers
    )
    assert fault(grip(bench.now, 0.04)) is None
    assert "outside 0 to 0.04" in fault(grip(bench.now, 0.05))
    assert "not finite" in fault(grip(bench.now, float("nan")))
    assert "1000 ms old" in fault(grip(bench.now - 1.0, 0.0))
    assert "no gripper joint other" in fault(grip(bench.now, 0.0, "other"))
    assert "2 publishers" in fault(grip(bench.now, 0.0), 2)
    bench.state = bench.guard.stop(bench.state, "button", SEEN)
    assert "the arm is latched: button" in fault(grip(bench.now, 0.0))
