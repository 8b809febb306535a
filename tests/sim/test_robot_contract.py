"""The simulator as its contract describes it."""

from __future__ import annotations

import numpy as np

from policy.contract_check import match
from policy.robot.messages import decode_state
from tests.policy.robot.fakes import contract, pose


def test_the_tabletop_pose_reads_as_the_suite_says_it(tabletop):
    """The same numbers through a PoseStamped as straight from the simulator."""
    tabletop.reset(50_000)
    state = np.asarray(tabletop.proprioception(), np.float64)
    angle = np.linalg.norm(state[3:6])
    quat = (*(state[3:6] / angle * np.sin(angle / 2)), np.cos(angle / 2))
    for sign in (1.0, -1.0):
        message = pose(1.0, state[:3], [sign * q for q in quat])
        seen = decode_state(message, contract().state[0])
        np.testing.assert_allclose(seen, state[:6], atol=1e-6)


def test_the_contract_fits_what_the_suite_shows_and_takes(tabletop):
    match(contract(), tabletop.spec.observation, tabletop.spec.action)
