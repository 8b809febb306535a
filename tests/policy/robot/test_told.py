"""Policy and guard count motion alike, whatever is refused and however late that is heard."""

from __future__ import annotations

import dataclasses
import random
from collections import deque

import numpy as np
import pytest

from policy.robot.commands import Trajectory, zero_twist
from policy.robot.guard import Guard, Measured
from policy.robot.limits import at_rest, bounds_of
from policy.robot.told import UNDER_WAY, Told, follow
from tests.policy.robot.fakes import Rig, small_pictures

ROBOTS = ["tabletop", "ur5e_servo", "so101"]
# Below what this arm may do, so that twists too need several periods up to their speed.
GENTLE = {"ur5e_servo": {"limits__linear__acceleration": 0.4, "limits__linear__jerk": 2.0}}
REACH = {"tabletop": 0.5, "ur5e_servo": 0.05, "so101": 0.3}


class Chain:
    """A policy that always moves, its guard, and a way back that takes `late` commands' time."""

    def __init__(self, robot: str, late: int = 0, *, listens: bool = True) -> None:
        # Overlap never rests between chunks, so nothing but listening brings the two together.
        edits = small_pictures(robot) | GENTLE.get(robot, {})
        self.rig = Rig(robot, **edits, execution__mode="overlap", execution__settle_ms=0.0)
        self.guard = Guard(self.rig.contract)
        self.state = self.guard.initial()
        self.late, self.listens = late, listens
        self.echo: deque = deque()
        self.steps = 0
        self.rig.start()

    @property
    def told(self) -> Told:
        return self.rig.session.mover.told

    def seen(self) -> Measured:
        senses, now_s = self.rig.session.senses, self.rig.now_s
        return Measured(senses.joints(now_s), senses.hand(now_s))

    def step(self, *, spoil: bool = False) -> str:
        """One period; the guard's mode. A spoiled command arrives a second old."""
        rig = self.rig
        self.steps += 1
        value = REACH[rig.contract.robot] * (-1) ** (self.steps // 16)
        command = rig.step(rig.chunk(value)).command
        if command is not None:
            if spoil:
                command = dataclasses.replace(command, stamp_s=command.stamp_s - 1.0)
            self.out(*self.guard.judge(self.state, command, self.seen(), rig.now_s + 1e-3, 1))
        self.out(*self.guard.tick(self.state, self.seen(), rig.now_s + 2e-3))
        while len(self.echo) > self.late:
            self.hear()
        return self.state.mode

    def out(self, state, command) -> None:
        self.state = state
        if command is None:
            return
        self.echo.append(command)
        if isinstance(command, Trajectory) and len(command.times_s):
            where = command.positions[0].tolist()
            self.rig.positions.update(zip(command.joints, where, strict=True))

    def hear(self) -> None:
        heard = self.echo.popleft()
        if self.listens:
            self.rig.session.heard(heard, self.rig.now)

    def agree(self) -> bool:
        mine = self.told.motion or at_rest(len(self.guard.bounds.names))
        theirs = self.state.motion
        return np.allclose(mine.velocity, theirs.velocity) and np.allclose(
            mine.acceleration, theirs.acceleration, atol=1e-6
        )


@pytest.mark.parametrize("robot", ROBOTS)
def test_without_a_refusal_both_always_agree_and_nothing_is_overridden(robot):
    chain = Chain(robot)
    modes = []
    for _ in range(300):
        modes.append(chain.step())
        assert chain.state.mode == "idle" or chain.agree()
    assert set(modes[3:]) == {"pass"}
    assert "overridden" not in chain.rig.session.ledger.counters


@pytest.mark.parametrize("late", [0, 1, 3])
@pytest.mark.parametrize("robot", ROBOTS)
def test_after_a_refusal_both_begin_from_rest_and_agree(robot, late):
    chain = Chain(robot, late)
    modes = [chain.step(spoil=i == 60) for i in range(160)]
    assert modes[59] == "pass"
    assert modes[60] == "safe"
    # What was under way when the refusal was made may be refused too; nothing behind it is.
    assert set(modes[62 + late :]) == {"pass"}
    if robot != "tabletop":  # it may reverse within a period: there one lost command leaps nowhere
        assert chain.rig.session.ledger.counters["overridden"] >= 1
    while chain.echo:
        chain.hear()
    assert chain.agree()


@pytest.mark.parametrize("robot", ["ur5e_servo", "so101"])
def test_without_listening_one_refusal_would_be_the_first_of_many(robot):
    chain = Chain(robot, listens=False)
    modes = [chain.step(spoil=i == 60) for i in range(160)]
    assert modes[60:].count("pass") < 80
    assert chain.state.causes["limit"] > 3


@pytest.mark.parametrize("robot", ROBOTS)
@pytest.mark.parametrize("seed", [1, 2])
def test_random_refusals_and_delays_end_in_agreement(robot, seed):
    rng = random.Random(seed)
    chain = Chain(robot)
    for _ in range(12):
        for _ in range(rng.randint(1, 30)):
            chain.late = rng.randint(0, 3)
            chain.step(spoil=rng.random() < 0.05)
        chain.late = 0
        for _ in range(4):
            chain.step()
        assert chain.agree()
        if chain.state.mode == "latched":
            chain.state = chain.guard.reset(chain.state)
    assert chain.state.passed > 100


def told_of(robot: str) -> tuple[Told, Rig]:
    rig = Rig(robot)
    return Told(bounds_of(rig.contract), rig.contract.period_s), rig


def twist(x: float, stamp_s: float):
    out = zero_twist(stamp_s, "base")
    out.values[0] = x
    return out


def test_the_guards_own_rest_before_our_first_motion_overrides_nothing():
    """Its timer and our first command cross; both count from rest."""
    told, _ = told_of("ur5e_servo")
    rest = at_rest(6)
    told.say(twist(0.01, 10.0), rest)
    believed = told.motion
    assert not told.hear(zero_twist(10.0, "base"))
    np.testing.assert_array_equal(told.motion.velocity, believed.velocity)
    assert not told.hear(twist(0.01, 10.0))


def test_a_refusal_under_the_same_stamp_is_noticed():
    """Simulated time stands still between a command and the safe action in its place."""
    told, _ = told_of("ur5e_servo")
    motion = at_rest(6)
    for i, x in enumerate((0.01, 0.02, 0.03)):
        told.say(twist(x, 10.0 + i), motion)
        motion = told.motion
    assert not told.hear(twist(0.01, 10.0))
    assert not told.hear(twist(0.02, 11.0))
    assert told.hear(zero_twist(12.0, "base"))


def test_first_commands_that_are_refused_one_after_the_other_are_noticed():
    told, rig = told_of("ur5e_servo")
    period, motion, noticed = rig.contract.period_s, at_rest(6), []
    for i, x in enumerate((0.02, 0.06, 0.11)):
        told.say(twist(x, 10.0 + i * period), motion)
        motion = told.motion
        noticed.append(told.hear(zero_twist(10.0 + i * period, "base")))
        motion = told.motion or at_rest(6)
    assert any(noticed[:2])


def test_a_full_stop_is_rest_for_both():
    """The guard lets a stop pass from any motion, and counts from rest behind it."""
    motion = follow(at_rest(6), twist(0.2, 1.0), 6, 0.2)
    stopped = follow(motion, zero_twist(1.2, "base"), 6, 0.2)
    assert not stopped.velocity.any()
    assert not stopped.acceleration.any()


def test_what_is_remembered_is_bounded():
    told, _ = told_of("ur5e_servo")
    for i in range(1000):
        told.say(twist(0.01, float(i)), told.motion)
    assert len(told._sent) == UNDER_WAY
    told.forget()
    assert told.motion is None
