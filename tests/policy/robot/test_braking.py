"""Braking in time, as properties: what the shaper sends, the guard lets pass, whatever is asked."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policy.robot.braking import _reach, brake, travel
from policy.robot.guard import Guard, Measured
from policy.robot.limits import Motion, advance, at_rest, bounds_of, broken, slew
from policy.robot.shaping import Shaper
from tests.policy.robot.fakes import CONTRACTS, Rig, changed, contract, small_pictures

seeds = st.integers(0, 2**32 - 1)


def driven(bounds, period, rng) -> Motion:
    """A motion that the limits allow, reached by wishes from rest."""
    size = len(bounds.names)
    motion = at_rest(size)
    for _ in range(rng.integers(0, 12)):
        wish = rng.uniform(-1.2, 1.2, size) * bounds.velocity
        motion = advance(motion, slew(bounds, motion, wish, period), period)
    return motion


@pytest.mark.parametrize("name", CONTRACTS)
@settings(max_examples=25)
@given(seed=seeds)
def test_braking_keeps_the_limits_ends_at_rest_and_travels_less_than_is_reserved(name, seed):
    chosen = contract(name)
    bounds, period = bounds_of(chosen), chosen.period_s
    motion = driven(bounds, period, np.random.default_rng(seed))
    speed, gain, place = motion.velocity, motion.acceleration, np.zeros(len(bounds.names))
    down, up = travel(bounds, speed, gain, period)
    reach = _reach(bounds, speed, gain, period)
    assert (np.maximum(-down, up) <= reach).all()
    for _ in range(60):
        speed, gain = brake(bounds, speed, gain, period)
        then = Motion(speed, gain)
        assert broken(bounds, motion, then, period) == []
        place, motion = place + speed * period, then
        assert ((place >= down - 1e-12) & (place <= up + 1e-12)).all()
    assert np.abs(speed).max() < 1e-12
    assert np.abs(gain).max() < 1e-12


def narrow(name: str):
    """A robot with so little jerk that it needs many periods to brake, and close limits."""
    chosen = contract(name)
    for joint in chosen.limits.joints:
        chosen = changed(chosen, f"limits.joints.{joint}.jerk", 20.0)
    return chosen


@pytest.mark.parametrize("chosen", [contract("so101"), contract("franka"), narrow("so101")])
@settings(max_examples=15)
@given(seed=seeds)
def test_at_full_speed_towards_a_limit_there_is_always_a_next_step(chosen, seed):
    shaper, rng = Shaper(chosen), np.random.default_rng(seed)
    bounds = shaper.bounds
    size = len(bounds.names)
    motion = at_rest(size, (bounds.lower + bounds.upper) / 2)
    for _ in range(4):
        parts = rng.uniform(-1.0, 1.0, size)
        ends = np.where(parts < 0, bounds.lower, bounds.upper)
        wanted = ends if rng.random() < 0.5 else motion.position + parts
        for _ in range(rng.integers(1, 60)):
            target = np.clip(wanted, bounds.lower, bounds.upper)
            motion = shaper.step(motion, target, None).motion  # raises where it must refuse


def test_a_limit_is_reached_and_not_only_approached():
    shaper = Shaper(narrow("so101"))
    motion = at_rest(5, np.zeros(5))
    for _ in range(300):
        motion = shaper.step(motion, shaper.bounds.upper, None).motion
    np.testing.assert_allclose(motion.position, shaper.bounds.upper, atol=1e-3)


def test_far_from_every_limit_nothing_is_changed():
    shaper = Shaper(contract("so101"))
    motion = plain = at_rest(5, np.zeros(5))
    for i in range(40):
        wanted = np.full(5, 0.3 * np.sin(i / 5))
        motion = shaper.step(motion, wanted, None).motion
        target = (wanted - plain.position) / shaper.period_s
        speed = slew(shaper.bounds, plain, target, shaper.period_s)
        plain = advance(plain, speed, shaper.period_s)
        np.testing.assert_array_equal(motion.position, plain.position)


class Guarded(Rig):
    """A robot that does exactly what its guard lets pass."""

    def __init__(self, robot: str) -> None:
        super().__init__(robot, horizon=4, **small_pictures(robot))
        self.guard = Guard(self.contract)
        self.state = self.guard.initial()
        self.start()

    def drive(self, actions) -> None:
        output = self.step(actions)
        if output.command is None:
            return
        twist = self.contract.command.kind == "twist"
        joints = None if twist else np.array([self.positions[n] for n in self.guard.bounds.names])
        seen = Measured(joints, np.array(self.hand))
        self.state, told = self.guard.judge(self.state, output.command, seen, self.now_s, 1)
        assert self.state.mode == "pass", self.state.reason
        self.session.heard(told, self.now)
        if twist:
            self.hand = list(self.hand + told.values[:3] * self.contract.period_s)
        else:
            self.positions |= dict(zip(told.joints, map(float, told.positions[0]), strict=True))


@pytest.mark.parametrize("name", CONTRACTS)
@settings(max_examples=8)
@given(seed=seeds)
def test_no_chunk_inside_the_spec_is_refused_by_session_or_guard(name, seed):
    """Any speeds within the limits, or any joint positions a joint could follow, row by row."""
    rig = Guarded(name)
    bounds, period = rig.guard.bounds, rig.contract.period_s
    columns, scale = list(rig.contract.action.columns), np.asarray(rig.contract.action.scale)
    rng = np.random.default_rng(seed)
    for _ in range(10):
        rows = np.zeros((4, rig.dof))
        if rig.contract.command.kind == "twist":
            rate = rig.contract.rate_hz if rig.contract.action.kind == "delta_eef" else 1.0
            speeds = np.sign(rng.uniform(-1, 1, 6)) * rng.choice([1.0, 0.999, 0.3])
            rows[:, columns] = speeds * bounds.velocity / scale / rate
        else:
            start = np.where(rng.random(len(scale)) < 0.5, bounds.lower, bounds.upper)
            most = bounds.velocity * period * rng.choice([0.0, 0.9])
            path = start + np.cumsum(rng.uniform(-1, 1, (4, len(scale))) * most, axis=0)
            rows[:, columns] = np.clip(path, bounds.lower, bounds.upper) / scale
        for _ in range(int(rng.integers(1, 10))):
            rig.drive(rows)
    assert "chunk_dropped" not in rig.session.ledger.counters, rig.session.ledger.notes
    assert not rig.session.fault
