"""LIBERO's episodes can be gone back to, bit for bit, through their worker."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from sim.suites import make_suite
from sim.suites.environment import environments
from sim.suites.libero.assets import VARIABLE
from tests.sim.attribution.test_robosuite_states import STEPS, check_that_it_goes_back

SHARED = Path(__file__).resolve().parents[4] / "shared" / "libero" / "assets"


@pytest.mark.gl
@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", ["libero_object", "libero_goal"])
def test_the_same_actions_from_a_restored_state_give_the_same_bits(name, monkeypatch) -> None:
    if not environments()["libero"].installed:
        pytest.skip("LIBERO's environment is missing: leanvla suites install libero")
    if VARIABLE not in os.environ:
        if not SHARED.is_dir():
            pytest.skip(f"LIBERO's assets are missing: set {VARIABLE}")
        monkeypatch.setenv(VARIABLE, str(SHARED))
    suite = make_suite(name, render_profile="lowpoly", view_size=96)
    rng, object_ = np.random.default_rng(0), name == "libero_object"
    try:
        actions = rng.uniform(-1, 1, (STEPS, 7)).astype(np.float32)
        actions[:4, 3:6] = 0.0  # the hand's turn keeps its goal
        actions[2:8, 6] = 0.0  # the fingers keep their command
        for seed, before in ((7, 50), (7, 5)):  # libero_goal's eighth task turns on a stove
            suite.reset(seed)
            for _ in range(before):
                suite.step(suite.expert_action() if object_ else actions[5])
            check_that_it_goes_back(suite, actions, seed, seed + 10)
    finally:
        suite.close()
