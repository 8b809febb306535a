"""The first query and the ten-thousandth: cold engines, and memory over hours."""

from __future__ import annotations

import gc
import sys

import pytest
from leanvla_ros.ladder import Ladder

from tests.policy.robot.fakes import Rig, contract, small_pictures

STEPS = 5000  # of two cameras: ten thousand frames


@pytest.mark.alone
def test_every_rung_is_warm_before_the_node_is_ready():
    ladder = Ladder("tests.ros.policies:Cold", [("dense", 1.0), ("random", 0.25)], contract())
    for rung in ladder:
        assert rung.policy.queries >= 2
        assert rung.warm_ms < 150.0  # the first call's 300 ms are no steady state
    assert ladder.current.name == "dense"


@pytest.mark.parametrize("robot", ["tabletop", "so101"])
def test_memory_does_not_grow_over_ten_thousand_frames(robot):
    rig = Rig(robot, horizon=2, **small_pictures(robot))
    rig.start()
    for _ in range(2200):  # rings and histories fill, the longest holds 512 latencies
        rig.step()
    began = _blocks()
    for _ in range(STEPS):
        rig.step()
    # A thing kept at every tenth step would already be more.
    assert _blocks() - began < STEPS // 10
    assert rig.session.ledger.counters["chunks"] > 700


def _blocks() -> int:
    gc.collect()
    return sys.getallocatedblocks()
