"""Simulated time waits for motions: none is lost, doubled, or late because a machine is busy."""

from __future__ import annotations

import random
from collections import deque

import numpy as np
import pytest
from leanvla_ros.lockstep import MOST, SILENT_S, THINK_S, Lockstep

from policy.robot.guard import Guard, Measured
from tests.policy.robot.fakes import Rig, inference, small_pictures

REST = np.zeros(6)
PERIOD_S = 0.05


def move(speed: float) -> np.ndarray:
    return np.array([speed, 0, 0, 0, 0, 0])


def moving() -> Lockstep:
    """A scene in which the first motion was made at 1.0."""
    steps = Lockstep(PERIOD_S)
    steps.take(move(0.1), 1.0, 1.0)
    steps.take_gripper()
    assert steps.ready(1.0, 0.0)
    steps.next()
    return steps


def test_before_anybody_commands_time_goes_on_at_its_ordinary_pace():
    steps = Lockstep(PERIOD_S)
    assert not steps.ready(1.0, 0.04)
    assert steps.ready(1.0, 0.06)


def test_a_scene_waits_for_its_first_motion_once_somebody_is_there():
    steps = Lockstep(PERIOD_S)
    steps.take(REST, 1.0, 1.05)  # still of the scene before
    assert steps.ready(1.0, 0.0)
    assert not steps.next().any()
    steps.take(REST, 1.05, 1.05)
    assert not steps.ready(1.05, THINK_S - 1.0)


def test_time_stands_still_while_a_policy_that_moved_thinks():
    steps = moving()
    steps.take(REST, 1.05, 1.0)
    steps.take_gripper()
    assert not steps.ready(1.05, THINK_S - 1.0)
    steps.take(move(0.2), 1.05, 1.0)
    assert not steps.ready(1.05, 0.0)  # what the hand is to do is still on its way
    steps.take_gripper()
    assert steps.ready(1.05, 0.0)
    assert steps.next()[0] == 0.2


def test_a_policy_that_rests_for_good_does_not_stop_the_world():
    steps = moving()
    steps.take(REST, 1.05, 1.0)
    assert steps.ready(1.05, THINK_S)
    steps.next()
    steps.take(REST, 1.10, 1.0)
    assert steps.ready(1.10, 0.0)  # paused, or stopped: from here on at the ordinary pace
    steps.next()
    steps.take(move(0.1), 1.15, 1.0)
    steps.take_gripper()
    steps.next()
    steps.take(REST, 1.20, 1.0)
    assert not steps.ready(1.20, 0.0)


def test_an_instant_without_any_command_passes_in_the_end():
    steps = moving()
    assert not steps.ready(1.05, SILENT_S - 0.1)
    assert steps.ready(1.05, SILENT_S)
    assert not steps.next().any()


def test_every_motion_moves_one_step_in_its_order():
    steps = Lockstep(PERIOD_S)
    steps.take(move(0.1), 1.0, 1.0)
    steps.take(move(0.2), 1.05, 1.0)
    assert [steps.next()[0] for _ in range(3)] == [0.1, 0.2, 0.0]


def test_commands_for_the_scene_before_let_time_go_on_and_move_nothing():
    steps = Lockstep(PERIOD_S)
    steps.take(move(0.1), 1.0, np.inf)
    assert steps.ready(1.0, 0.0)
    assert not steps.next().any()


def test_a_flood_is_bounded():
    steps = Lockstep(PERIOD_S)
    for i in range(100):
        steps.take(move(i + 1.0), 1.0 + i, 1.0)
    assert [steps.next()[0] for _ in range(MOST + 1)] == [97.0, 98.0, 99.0, 100.0, 0.0]


class Processes:
    """Simulator, policy and guard, each with its own idea of the time; messages take any time."""

    def __init__(self, seed: int) -> None:
        self.rng, self.steps = random.Random(seed), Lockstep(PERIOD_S)
        self.rig = Rig(horizon=4, start_s=1.0, **small_pictures("tabletop"))
        self.guard = Guard(self.rig.contract)
        self.state, self.guard_s = self.guard.initial(), 1.0
        self.sim_s, self.waited_s, self.mono_s = 1.0, 0.0, 0.0
        self.wires: dict[str, deque] = {name: deque() for name in self.CARRIED}
        self.thinking: tuple | None = None
        self.said = 0
        self.rows: list[float] = []
        self.made: list[float] = []
        self.rested_after: list[float] = []
        self.looked_s: list[tuple[float, int]] = []
        self.rig.start()

    CARRIED = ("clock", "guard clock", "command", "guarded", "echo")

    @property
    def now(self):
        return type(self.rig.now)(self.rig.now_s, self.mono_s)

    def run(self, steps: int) -> None:
        self.show()
        for _ in range(20_000):
            if len(self.made) == steps:
                return
            self.mono_s += self.rng.choice((0.0, 0.001, 0.02))
            self.waited_s += 0.01
            full = [name for name in self.CARRIED if self.wires[name]]
            if full and self.rng.random() < 0.8:
                name = self.rng.choice(full)
                getattr(self, name.replace(" ", "_"))(self.wires[name].popleft())
            elif self.thinking and self.rng.random() < 0.2:
                self.answer()
            if self.steps.ready(self.sim_s, self.waited_s):
                self.step()
        raise AssertionError(f"only {len(self.made)} of {steps} steps")

    def show(self) -> None:
        self.wires["clock"].append(self.sim_s)
        self.wires["guard clock"].append(self.sim_s)
        self.waited_s = 0.0

    def step(self) -> None:
        speed = self.steps.next()[0]
        if speed:
            self.made.append(speed)
        elif self.made:
            self.rested_after.append(self.sim_s)
        self.sim_s = round(self.sim_s + PERIOD_S, 6)
        self.show()

    def clock(self, now_s: float) -> None:
        """Time, pictures and state reach the policy."""
        self.rig.now_s = now_s
        self.send(self.rig.session.period(self.now))
        self.rig.sense()
        self.ask()

    def ask(self) -> None:
        if self.thinking is None:
            self.thinking = self.rig.session.ask(self.now)
            if self.thinking is not None:
                self.looked_s.append((self.thinking.paired.stamp_s, len(self.rows)))

    def answer(self) -> None:
        question, self.thinking = self.thinking, None
        chunk = self.rig.chunk(0.0)
        for row in chunk:
            self.said += 1
            row[0] = self.said * 1e-4
        if self.rig.session.answer(question, inference(chunk), self.now):
            self.send(self.rig.session.tick(self.now))

    def send(self, output) -> None:
        if output.command is not None:
            if output.command.values.any():
                self.rows.append(float(output.command.values[0]))
            self.wires["command"].append(output.command)
        self.ask()

    def guard_clock(self, now_s: float) -> None:
        self.guard_s = now_s
        self.through(*self.guard.tick(self.state, self.seen, now_s))

    @property
    def seen(self) -> Measured:
        return Measured(None, np.array(self.rig.hand))

    def command(self, command) -> None:
        # A clock reaches both before the simulator goes on: the guard's lags one step at most.
        while len(self.wires["guard clock"]) > 1:
            self.guard_clock(self.wires["guard clock"].popleft())
        self.through(*self.guard.judge(self.state, command, self.seen, self.guard_s, 1))

    def through(self, state, command) -> None:
        self.state = state
        if command is not None:
            self.wires["guarded"].append(command)
            self.wires["echo"].append(command)

    def guarded(self, command) -> None:
        self.steps.take(command.values, command.stamp_s, 1.0)
        self.steps.take_gripper()

    def echo(self, command) -> None:
        self.rig.session.heard(command, self.now)


@pytest.mark.parametrize("seed", range(6))
def test_however_long_messages_and_thoughts_take_the_same_steps_are_made(seed):
    world = Processes(seed)
    world.run(60)
    speeds = [pytest.approx((i + 1) * 1e-4, rel=1e-5) for i in range(60)]
    assert world.made == speeds  # each row once, in its order
    assert not world.rested_after  # and none but these
    assert world.state.refused == 0
    assert "overridden" not in world.rig.session.ledger.counters
    # Every look is at the scene behind the last row, as in a rollout. Before the first chunks time
    # ran free, because nobody had commanded yet.
    for _, rows in world.looked_s[1:]:
        assert rows % 4 == 0
    gaps = np.diff([stamp_s for stamp_s, _ in world.looked_s[4:]])
    np.testing.assert_allclose(gaps, 4 * PERIOD_S)
