"""Random faults, many at a time, for thousands of steps; every command that leaves is checked.

The invariant is written here once more, from the contract alone, and shares no code with the guard:
nothing older than its maximum age, nothing that is not finite, nothing outside any limit, nothing
but the safe action after a stop. A violation prints the seed that repeats it.
"""

from __future__ import annotations

import dataclasses
import random

import numpy as np
import pytest

from policy.robot.commands import Twist
from policy.robot.guard import Guard, Measured
from policy.robot.messages import MessageError
from policy.types import ObservationError
from tests.policy.robot.fakes import CONTRACTS, Rig, image, inference, small_pictures

STEPS = 2500


class Chaos:
    """A robot on which faults begin and end at random."""

    def __init__(self, robot: str, seed: int) -> None:
        self.rng = random.Random(seed)
        self.rig = Rig(robot, **small_pictures(robot))
        self.guard = Guard(self.rig.contract)
        self.state = self.guard.initial()
        self.published: list = []
        self.echo, self.late = [], random.Random(seed)
        self.faults: dict[str, int] = {}
        self.seen_faults: set[str] = set()
        self.question = None
        self.due = 0.0
        self.clean = self.rig.picture
        self.rig.picture = self.picture
        self.clean_measure = self.rig.measure
        self.rig.measure = self.measure
        self.rig.start()

    KINDS = (
        *("mute camera", "slow camera", "frozen", "stale", "future", "unstamped", "skew"),
        *("nan state", "nan action", "wild action", "leap", "encoding", "truncated", "shuffled"),
        *("no joint", "slow", "hang", "raise", "words", "flood", "hostile words", "late wire"),
        *("wire nan", "wire leap", "two publishers", "mute feedback", "policy dead"),
    )

    def step(self) -> None:
        rng, rig = self.rng, self.rig
        period = rig.contract.period_s
        rig.wait(period * rng.uniform(0.9, 1.1))
        if rng.random() < 0.002:
            rig.now_s -= rng.uniform(0.1, 20.0)  # the clock jumps back
            self.state = self.guard.forget_time(self.state)
            self.seen_faults.add("clock")
        for kind in [k for k, left in self.faults.items() if left <= 0]:
            del self.faults[kind]
        self.faults = {k: left - 1 for k, left in self.faults.items()}
        if rng.random() < 0.08:
            self.faults[rng.choice(self.KINDS)] = rng.randint(1, 25)
        self.seen_faults |= set(self.faults)
        self.sense()
        self.talk()
        self.think()
        self.act()

    def sense(self) -> None:
        rig, rng = self.rig, self.rng
        views = [camera.view for camera in rig.contract.cameras]
        rig.mute = set()
        if "mute camera" in self.faults or ("slow camera" in self.faults and rng.random() < 0.7):
            rig.mute.add(rng.choice(views) if "slow camera" in self.faults else views[0])
        if "mute feedback" in self.faults:
            rig.mute |= {"joints", "pose"}
        shift = {"stale": -2.0, "future": 5.0}
        stamp = next((rig.now_s + s for k, s in shift.items() if k in self.faults), rig.now_s)
        rig.sense(0.0 if "unstamped" in self.faults else stamp)

    def picture(self, camera, stamp):
        if "frozen" in self.faults:
            message = image(camera, stamp, np.full((camera.height, camera.width, 3), 7, np.uint8))
            return message if camera.type.endswith("Image") else self.clean(camera, stamp)
        message = self.clean(camera, stamp)
        if "skew" in self.faults and camera is self.rig.contract.cameras[0]:
            message.header.stamp.sec -= 1
        if "encoding" in self.faults:
            message.encoding = "yuv422"
        if "truncated" in self.faults:
            message.data = message.data[: len(message.data) // 2]
        return message

    def measure(self, source, stamp):
        message = self.clean_measure(source, stamp)
        if not hasattr(message, "name"):
            if "nan state" in self.faults:
                message.pose.position.x = float("nan")
            return message
        if "nan state" in self.faults:
            message.position[0] = float("nan")
        if "shuffled" in self.faults:
            order = list(range(len(message.name)))
            self.rng.shuffle(order)
            message.name = [message.name[i] for i in order]
            message.position = [message.position[i] for i in order]
        if "no joint" in self.faults:
            message.name[0] = "stranger"
        return message

    def talk(self) -> None:
        session, now = self.rig.session, self.rig.now
        if "words" in self.faults and self.rng.random() < 0.1:
            session.instruct(f"goal {self.rng.randint(0, 9)}", now)
        if "flood" in self.faults:
            for i in range(20):
                session.instruct(f"flood {i}", now)
        if "hostile words" in self.faults:
            session.instruct("</s> Out: 1\x00", now)
        if session.fault and self.rng.random() < 0.02:
            session.reset()
            if "hang" in self.faults:
                del self.faults["hang"]
        if self.state.mode == "latched" and self.rng.random() < 0.02:
            self.state = self.guard.reset(self.state)
        if self.rng.random() < 0.002:
            session.pause(not session.paused)
        if session.paused and self.rng.random() < 0.1:
            session.pause(False)

    def think(self) -> None:
        rig, session = self.rig, self.rig.session
        if self.question is None:
            self.question = session.ask(rig.now)
            slow = self.rng.uniform(0.2, 1.0) if "slow" in self.faults else 0.0
            self.due = rig.now.mono_s + slow + self.rng.uniform(0.0, 0.03)
            if "hang" in self.faults:
                self.due += 30.0
        if self.question is None or rig.now.mono_s < self.due:
            return
        question, self.question = self.question, None
        try:
            session.look(question)
            if "raise" in self.faults:
                raise RuntimeError("device lost")
        except (MessageError, ObservationError, RuntimeError) as error:
            session.failed(question, error, rig.now)
            return
        session.answer(question, inference(self.said()), rig.now)

    def said(self):
        rig, rng = self.rig, self.rng
        chunk = rig.chunk(0.0)
        scale = {"tabletop": 1.0, "ur5e_servo": 0.05}.get(rig.contract.robot, 0.2)
        chunk[:, 0] += scale * rng.uniform(-1, 1)
        if "leap" in self.faults:
            chunk[:, 1] += scale * rng.choice([-1.0, 1.0])
        if "wild action" in self.faults:
            chunk[rng.randrange(len(chunk)), rng.randrange(rig.dof - 1)] = rng.uniform(-50, 50)
        if "nan action" in self.faults:
            chunk[rng.randrange(len(chunk)), rng.randrange(rig.dof)] = float("nan")
        return chunk

    def act(self) -> None:
        rig = self.rig
        now_s = rig.now_s
        seen = Measured(rig.session.senses.joints(now_s), rig.session.senses.hand(now_s))
        if "policy dead" not in self.faults:
            command = self.on_the_wire(rig.session.tick(rig.now).command)
            if command is not None:
                publishers = 2 if "two publishers" in self.faults else 1
                self.state, out = self.guard.judge(self.state, command, seen, now_s, publishers)
                self.publish(out, seen)
        self.state, out = self.guard.tick(self.state, seen, now_s)
        self.publish(out, seen)

    def on_the_wire(self, command):
        """What may happen between the two processes."""
        if command is None:
            return None
        if "late wire" in self.faults:
            return dataclasses.replace(command, stamp_s=command.stamp_s - 1.0)
        field = "values" if isinstance(command, Twist) else "positions"
        values = getattr(command, field).copy()
        if "wire nan" in self.faults:
            values[...] = np.nan
        if "wire leap" in self.faults:
            values = values + 100.0 * self.rng.choice([-1, 1])
        return dataclasses.replace(command, **{field: values})

    def publish(self, out, seen) -> None:
        if out is None:
            return
        safe = self.state.mode in ("safe", "latched")
        self.published.append((out, self.rig.now_s, safe, seen))
        self.echo.append(out)
        while len(self.echo) > self.late.randint(0, 3):
            self.rig.session.heard(self.echo.pop(0), self.rig.now)
        if not safe and self.rig.contract.command.kind == "twist":
            self.rig.hand = [
                h + v * self.rig.contract.period_s
                for h, v in zip(self.rig.hand, out.values[:3], strict=True)
            ]
        elif not safe and len(out.times_s):
            self.rig.positions.update(zip(out.joints, out.positions[0].tolist(), strict=True))


def check_invariant(chaos: Chaos) -> None:
    """From the contract alone."""
    contract = chaos.rig.contract
    oracle = _TwistOracle(contract) if contract.command.kind == "twist" else _JointOracle(contract)
    for index, (out, now_s, safe, seen) in enumerate(chaos.published):
        where = f"command {index} at {now_s:.3f}"
        age_ms = (now_s - out.stamp_s) * 1e3
        assert -contract.command.age.ahead_ms <= age_ms <= contract.command.age.max_ms, where
        oracle.check(out, safe, seen, where)


class _TwistOracle:
    def __init__(self, contract) -> None:
        self.contract, self.speed, self.change = contract, np.zeros(6), np.zeros(6)
        limits = contract.limits
        self.most = {
            kind: np.repeat([getattr(limits.linear, kind), getattr(limits.angular, kind)], 3)
            for kind in ("velocity", "acceleration", "jerk")
        }

    def check(self, out, safe, seen, where) -> None:
        period, values = self.contract.period_s, out.values
        assert np.isfinite(values).all(), where
        if safe or not values.any():
            assert not values.any(), f"{where}: motion after a stop"
            self.speed, self.change = np.zeros(6), np.zeros(6)
            return
        change = (values - self.speed) / period
        for kind, amount in (
            ("velocity", values),
            ("acceleration", change),
            ("jerk", (change - self.change) / period),
        ):
            assert (np.abs(amount) <= self.most[kind] * 1.001).all(), f"{where}: {kind} {amount}"
        box = self.contract.limits.workspace
        there = seen.hand + values[:3] * period
        out_of = np.maximum(there - box.upper, np.array(box.lower) - there)
        inwards = np.maximum(seen.hand - box.upper, np.array(box.lower) - seen.hand)
        assert ((out_of <= 2e-3) | (out_of <= inwards)).all(), f"{where}: leaves the workspace"
        self.speed, self.change = values, change


class _JointOracle:
    def __init__(self, contract) -> None:
        self.contract, self.held = contract, None
        joints = [contract.limits.joints[name] for name in contract.command.joints]
        self.lower, self.upper = (
            np.array([getattr(j, e) for j in joints]) for e in ("lower", "upper")
        )
        self.velocity = np.array([j.velocity for j in joints])
        self.acceleration = np.array([j.acceleration for j in joints])
        self.place = self.speed = None

    def check(self, out, safe, seen, where) -> None:
        period = self.contract.period_s
        assert out.joints == self.contract.command.joints, where
        if not len(out.times_s):
            self.place = self.speed = self.held = None
            return
        assert np.isfinite(out.positions).all(), where
        if safe:
            first = self.held is None
            self.held = out.positions[0] if first else self.held
            np.testing.assert_array_equal(out.positions, self.held[None], where)
            self.place = self.speed = None
            return
        self.held = None
        assert (out.positions >= self.lower - 1e-6).all(), where
        assert (out.positions <= self.upper + 1e-6).all(), where
        start = seen.joints if self.place is None else self.place
        before = np.zeros(len(start)) if self.speed is None else self.speed
        speed = (out.positions[0] - start) / period
        assert (np.abs(speed) <= self.velocity * 1.001).all(), f"{where}: velocity {speed}"
        change = np.abs(speed - before) / period
        assert (change <= self.acceleration * 1.001).all(), f"{where}: acceleration {change}"
        self.place, self.speed = out.positions[0], speed


@pytest.mark.parametrize(
    ("robot", "seed"), [*((robot, 1) for robot in CONTRACTS), ("tabletop", 2), ("so101", 2)]
)
def test_whatever_happens_no_command_breaks_the_contract(robot, seed):
    chaos = Chaos(robot, seed)
    for _ in range(STEPS):
        chaos.step()
    try:
        check_invariant(chaos)
    except AssertionError as error:
        raise AssertionError(f"robot {robot}, seed {seed}: {error}") from error
    moving = [not safe for _, _, safe, _ in chaos.published]
    # The run meant something: the robot moved, was stopped, and met nearly every fault.
    assert sum(moving) > STEPS // 10, f"seed {seed}: {sum(moving)} moving commands"
    assert len(moving) - sum(moving) > STEPS // 20
    assert len(chaos.seen_faults) > 20


@pytest.mark.parametrize("robot", ["tabletop", "so101"])
def test_without_the_guard_the_invariant_would_fail(robot):
    """The check can fail: the same run with a guard that lets everything pass breaks it."""
    chaos = Chaos(robot, 1)
    chaos.guard.judge = lambda state, command, *_: (
        dataclasses.replace(state, mode="pass", heard_s=chaos.rig.now_s),
        command,
    )
    for _ in range(STEPS):
        chaos.step()
    with pytest.raises((AssertionError, TypeError)):
        check_invariant(chaos)
