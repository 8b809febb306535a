"""Policies that say what no robot may do."""

from __future__ import annotations

import numpy as np
import pytest

from policy.robot.limits import advance, at_rest, bounds_of, broken
from tests.policy.robot.fakes import CONTRACTS, Rig


def running(robot: str = "tabletop", **edits) -> Rig:
    rig = Rig(robot, **edits)
    rig.start()
    for _ in range(3):
        rig.step()
    return rig


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("robot", ["tabletop", "so101"])
def test_an_action_that_is_not_finite_ends_in_the_safe_action_then_latches(robot, bad):
    rig = running(robot)
    poison = rig.chunk()
    poison[-1, 1] = bad
    outputs = [rig.step(poison) for _ in range(120)]
    assert all(np.isfinite(_values(o.command)).all() for o in outputs if o.command is not None)
    assert (
        "chunks refused in a row, the last: the policy's action is not finite" in outputs[-1].safe
    )
    counted = rig.session.ledger.counters["chunk_dropped"]
    assert counted == rig.contract.command.latch_after  # nothing was asked after the latch
    rig.session.reset()
    rig.start()
    again = [rig.step() for _ in range(10)]
    assert not again[-1].safe


def test_a_few_bad_chunks_do_not_latch():
    rig = running()
    wild = rig.chunk(9.0)
    for _ in range(8):
        rig.step(wild)
    assert not rig.session.fault
    outputs = [rig.step() for _ in range(10)]
    assert not outputs[-1].safe
    assert not rig.session.fault


def test_far_beyond_a_limit_is_refused_and_a_little_is_clamped():
    rig = running()
    rig.step(rig.chunk(9.0))
    for _ in range(12):
        output = rig.step(rig.chunk(9.0))
    assert "linear x is asked for" in rig.session.ledger.notes["chunk"]
    assert output.safe
    for _ in range(12):
        output = rig.step(rig.chunk(1.1))
    assert output.command.values[0] == pytest.approx(1.0)
    assert rig.session.ledger.counters["clamped"] > 0
    assert rig.session.ledger.notes["clamped"] == "linear x clamped to its limit"


@pytest.mark.parametrize("robot", CONTRACTS)
def test_a_leap_between_chunks_is_slewed_and_its_size_reported(robot):
    """Alternating demands: every command in a row keeps velocity, acceleration and jerk."""
    rig = Rig(robot)
    rig.start()
    bounds, period = bounds_of(rig.contract), rig.contract.period_s
    twist = rig.contract.command.kind == "twist"
    measured = None if twist else np.array([rig.positions[n] for n in bounds.names])
    size = 0.3 * (bounds.velocity[0] if robot in ("tabletop", "ur5e_servo") else 0.5)
    scale = rig.contract.action.scale[0] * (
        rig.contract.rate_hz if rig.contract.action.kind == "delta_eef" else 1.0
    )
    motion, seams = at_rest(len(bounds.names), measured), []
    for i in range(80):
        output = rig.step(rig.chunk((size if i // 12 % 2 else -size) / scale))
        seams.append(rig.session.plan.seam)
        assert not output.safe
        values = _values(output.command)
        speed = values if twist else (values - motion.position) / period
        then = advance(motion, speed, period)
        assert broken(bounds, motion, then, period) == []
        motion = then
    if rig.contract.execution.mode == "overlap":
        assert max(seams) > 0


def test_no_motion_leaves_the_workspace():
    rig = running()
    rig.hand = [0.349, 0.0, 1.0]
    for _ in range(10):
        output = rig.step(rig.chunk(1.0))
    assert output.command.values[0] * 0.05 + 0.349 <= 0.35 + 1e-9
    rig.mute = {"pose"}
    for _ in range(20):
        output = rig.step(rig.chunk(1.0))
    assert "/eef_pose is silent" in rig.session.ledger.notes["chunk"]
    assert output.safe


def test_the_safe_action_of_joints_is_where_they_were_measured_and_never_zero():
    rig = running("so101")
    rig.positions["shoulder_lift"] = -0.31
    rig.step()
    rig.session.stop("test")
    first = rig.step().command
    measured = [rig.positions[name] for name in rig.contract.command.joints]
    np.testing.assert_allclose(first.positions[0], measured)
    rig.positions["shoulder_lift"] = -0.5  # sagging must not move the point that is held
    np.testing.assert_allclose(rig.step().command.positions[0], measured)


def test_without_a_measurement_the_controller_holds_by_itself():
    rig = running("so101")
    rig.mute = {"joints"}
    rig.wait(1.0)
    rig.session.stop("test")
    output = rig.session.tick(rig.now)
    assert len(output.command.times_s) == 0


def _values(command):
    return command.values if hasattr(command, "values") else command.positions[0]
