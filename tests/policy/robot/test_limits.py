"""Limits as properties: whatever is asked for, what comes out keeps every limit."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.robot.limits import advance, at_rest, bounds_of, broken, leaves, slew
from policy.robot.rows import RefusedError, anchor, interpret
from policy.robot.shaping import Shaper
from policy.robot.trajectory import TrajectoryError, encode, rejections
from tests.policy.robot.fakes import CONTRACTS, changed, contract

wild = st.floats(-1e3, 1e3, allow_nan=False)


@pytest.mark.parametrize("name", CONTRACTS)
@given(data=st.data())
def test_the_fastest_motion_breaks_no_limit_and_never_paints_itself_into_a_corner(name, data):
    chosen = contract(name)
    bounds, period = bounds_of(chosen), chosen.period_s
    size = len(bounds.names)
    motion = at_rest(size)
    for _ in range(data.draw(st.integers(1, 30))):
        scale = data.draw(st.sampled_from([0.1, 1.0, 100.0]))
        target = np.array(data.draw(st.lists(wild, min_size=size, max_size=size)))
        target = target / 1e3 * scale * bounds.velocity
        then = advance(motion, slew(bounds, motion, target, period), period)
        assert broken(bounds, motion, then, period) == []
        motion = then


@pytest.mark.parametrize("name", CONTRACTS)
def test_a_steady_wish_is_reached(name):
    chosen = contract(name)
    bounds, period = bounds_of(chosen), chosen.period_s
    motion, target = at_rest(len(bounds.names)), 0.8 * bounds.velocity
    for _ in range(200):
        motion = advance(motion, slew(bounds, motion, target, period), period)
    np.testing.assert_allclose(motion.velocity, target, rtol=1e-2)


@pytest.mark.parametrize("name", CONTRACTS)
def test_a_rest_is_exactly_a_rest(name):
    """The guard tells a stop from a motion by it, and simulated time waits for motions."""
    chosen = contract(name)
    bounds, period = bounds_of(chosen), chosen.period_s
    size = len(bounds.names)
    motion = at_rest(size)
    for target in (np.random.default_rng(3).uniform(-1, 1, size) * bounds.velocity, np.zeros(size)):
        for _ in range(100):
            motion = advance(motion, slew(bounds, motion, target, period), period)
    assert not motion.velocity.any()


@pytest.mark.parametrize("kind", ["velocity", "acceleration", "jerk"])
@pytest.mark.parametrize("axis", range(6))
def test_every_declared_limit_is_applied(axis, kind):
    """Ten times tighter in one place shows in that place and nowhere else."""
    chosen = contract()
    name = "linear" if axis < 3 else "angular"
    path = f"limits.{name}.{kind}"
    tight = changed(chosen, path, getattr(getattr(chosen.limits, name), kind) / 10)
    target = np.zeros(6)
    target[axis] = bounds_of(chosen).velocity[axis]
    rest = at_rest(6)
    free = slew(bounds_of(chosen), rest, target, 0.05)
    held = slew(bounds_of(tight), rest, target, 0.05)
    most = getattr(bounds_of(tight), kind)[axis]
    most *= {"velocity": 1.0, "acceleration": 0.05, "jerk": 0.05**2}[kind]
    assert held[axis] == pytest.approx(most)
    assert free[axis] > most
    problems = broken(bounds_of(tight), rest, advance(rest, free, 0.05), 0.05)
    assert [p.split(" is ")[0] for p in problems] == [f"{kind} of {name} {'xyz'[axis % 3]}"]


@pytest.mark.parametrize("end", ["lower", "upper"])
def test_positions_are_clamped_within_the_margin_and_refused_beyond(end):
    chosen = contract("so101")
    shaper = Shaper(chosen)
    limit = getattr(chosen.limits.joints["elbow_flex"], end)
    sign = 1 if end == "upper" else -1
    actions = np.zeros((4, 6))
    actions[:, 2] = limit + sign * 0.01
    rows, notes = shaper.check_chunk(interpret(actions, chosen))
    assert rows.values[:, 2] == pytest.approx(limit)
    assert notes == ("elbow_flex clamped to its limit",)
    actions[:, 2] = limit + sign * 0.5
    with pytest.raises(RefusedError, match=r"elbow_flex is asked for .* chunk refused"):
        shaper.check_chunk(interpret(actions, chosen))


def test_speeds_beyond_the_margin_are_refused():
    chosen, actions = contract(), np.zeros((8, 7))
    actions[3, 1] = 1.2
    rows, notes = Shaper(chosen).check_chunk(interpret(actions, chosen))
    assert rows.values[3, 1] == 1.0
    assert notes == ("linear y clamped to its limit",)
    actions[3, 1] = -1.3
    with pytest.raises(RefusedError, match=r"linear y is asked for -1.3 in row 3"):
        Shaper(chosen).check_chunk(interpret(actions, chosen))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("column", [0, 6])
def test_what_is_not_finite_is_refused_whole(bad, column):
    chosen, actions = contract(), np.zeros((8, 7))
    actions[7, column] = bad
    with pytest.raises(RefusedError, match="not finite"):
        Shaper(chosen).check_chunk(interpret(actions, chosen))


def test_joints_that_would_have_to_leap_are_refused():
    chosen, actions = contract("so101"), np.zeros((4, 6))
    actions[2:, 0] = 1.0
    with pytest.raises(RefusedError, match="shoulder_pan would move at 30 after row 1"):
        Shaper(chosen).check_chunk(interpret(actions, chosen))


def test_units_polarity_and_deltas():
    chosen = contract()
    actions = np.array([[1.0, 0, 0, 0, 0, 0.5, -1.0], [0, 0, 0, 0, 0, 0, 1.0]])
    rows = interpret(actions, chosen)
    assert rows.values[0] == pytest.approx([1.0, 0, 0, 0, 0, 5.0])  # m/s and rad/s
    assert rows.gripper[:, 0] == pytest.approx([0.04, 0.0])
    arm = contract("so101")
    rows = interpret(np.full((3, 6), 0.1), changed(arm, "action.kind", "joint_delta"))
    anchored = anchor(rows, np.full(5, 1.0))
    np.testing.assert_allclose(anchored.values[:, 0], [1.1, 1.2, 1.3])
    assert rows.gripper[0, 0] == pytest.approx(0.16)


def test_the_workspace_lets_in_and_not_out():
    chosen = contract()
    box = chosen.limits.workspace
    edge = np.array([box.upper[0], 0.0, 1.0])
    assert leaves(box, edge, np.array([1.0, 0, 0]), 0.05)[0] == pytest.approx(0.05)
    assert not leaves(box, edge, np.array([-1.0, 0, 0]), 0.05).any()
    outside = edge + np.array([0.2, 0, 0])
    assert not leaves(box, outside, np.array([-1.0, 0, 0]), 0.05).any()
    shaped = Shaper(chosen).step(at_rest(6), np.array([1.0, 0.5, 0, 0, 0, 0]), edge)
    assert shaped.motion.velocity[:2] == pytest.approx([0.0, 0.5])
    assert shaped.clamped == ("held at the edge of the workspace",)
    with pytest.raises(RefusedError, match="/eef_pose is silent"):
        Shaper(chosen).step(at_rest(6), np.zeros(6), None)


NAMES = ("a", "b")
GOOD = encode(10.0, NAMES, np.array([[0.0, 0.1], [0.1, 0.2], [0.2, 0.3]]), 0.1)


def test_what_is_encoded_is_never_rejected_and_ends_at_rest():
    assert rejections(GOOD, NAMES, 10.0) == []
    np.testing.assert_allclose(GOOD.times_s, [0.1, 0.2, 0.3])
    np.testing.assert_allclose(GOOD.velocities[:, 0], [1.0, 1.0, 0.0])


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        ({"joints": ()}, "names no joint"),
        ({"joints": ("a", "c")}, "it names a, c, the controller has a, b"),
        ({"joints": ("a",), "positions": np.zeros((3, 1)), "velocities": None}, "it names a,"),
        ({"times_s": np.zeros(0)}, "no point"),
        ({"times_s": np.array([0.1, 0.1, 0.2])}, "do not increase"),
        ({"times_s": np.array([0.0, 0.1, 0.2])}, "do not increase"),
        ({"positions": np.zeros((3, 1))}, r"positions are \(3, 1\)"),
        ({"velocities": np.zeros((2, 2))}, r"velocities are \(2, 2\)"),
        ({"velocities": np.ones((3, 2))}, "last velocity is not zero"),
        ({"positions": np.full((3, 2), np.nan)}, "not finite"),
        ({"stamp_s": 9.0}, "ended 0.700 s ago"),
    ],
)
def test_every_rule_of_the_controller_is_stated(edit, says):
    problems = rejections(dataclasses.replace(GOOD, **edit), NAMES, 10.0)
    assert re.search(says, "; ".join(problems))


def test_encoding_refuses_what_the_controller_would():
    with pytest.raises(TrajectoryError, match="no point"):
        encode(1.0, NAMES, np.zeros((0, 2)), 0.1)
