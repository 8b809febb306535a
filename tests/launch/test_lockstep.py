"""Simulated time waits for commands: none is lost, doubled, or late because a machine is busy."""

from __future__ import annotations

import numpy as np
from leanvla_ros.lockstep import MOST, PATIENCE, Lockstep

REST = np.zeros(6)


def move(speed: float) -> np.ndarray:
    return np.array([speed, 0, 0, 0, 0, 0])


def test_time_goes_on_until_somebody_commands():
    steps = Lockstep()
    assert steps.ready(1.0)
    steps.take(move(0.1), 1.0, 1.0)
    assert steps.ready(1.0)
    assert not steps.ready(1.05)


def test_every_command_moves_one_step_in_its_order():
    steps = Lockstep()
    steps.take(move(0.1), 1.0, 1.0)
    steps.take(move(0.2), 1.05, 1.0)
    assert [steps.next()[0] for _ in range(3)] == [0.1, 0.2, 0.0]


def test_a_rest_is_replaced_by_the_motion_behind_it():
    steps = Lockstep()
    steps.take(REST, 1.0, 1.0)
    steps.take(move(0.1), 1.0, 1.0)
    assert [steps.next()[0] for _ in range(2)] == [0.1, 0.0]


def test_commands_for_the_scene_before_let_time_go_on_and_move_nothing():
    steps = Lockstep()
    steps.take(move(0.1), 1.0, np.inf)
    assert steps.ready(1.0)
    assert not steps.next().any()


def test_patience_ends_and_begins_anew():
    steps = Lockstep()
    steps.take(REST, 1.0, 1.0)
    for _ in range(PATIENCE):
        assert not steps.ready(1.05)
        steps.wait()
    assert steps.ready(1.05)
    steps.next()
    assert not steps.ready(1.1)


def test_a_flood_is_bounded():
    steps = Lockstep()
    for i in range(100):
        steps.take(move(i + 1.0), 1.0 + i, 1.0)
    assert [steps.next()[0] for _ in range(MOST + 1)] == [97.0, 98.0, 99.0, 100.0, 0.0]
