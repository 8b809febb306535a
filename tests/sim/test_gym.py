from __future__ import annotations

import subprocess
import sys
import warnings

import numpy as np
import pytest

gymnasium = pytest.importorskip("gymnasium")

import sim.gym  # noqa: E402
from sim.suites import SUITES, suite_spec  # noqa: E402
from tests.house.rules import ROOT  # noqa: E402


@pytest.mark.parametrize("suite", SUITES)
def test_every_suite_is_registered_with_its_units(suite: str) -> None:
    env = gymnasium.make(f"leanvla/{suite}-v0", disable_env_checker=True)
    spec = suite_spec(suite)
    told = env.unwrapped.metadata
    assert told["state_names"] == spec.observation.state_names
    assert told["action_names"] == spec.action.names
    assert (told["gripper"], told["rate_hz"]) == (spec.action.gripper, spec.action.rate_hz)
    assert env.action_space.shape == (spec.action.dof,)
    assert set(env.observation_space) == {*spec.observation.views, "state", "instruction"}
    env.close()


@pytest.mark.gl
@pytest.mark.parametrize(
    "suite", ["tabletop", pytest.param("robosuite_lift", marks=pytest.mark.slow)]
)
def test_gymnasiums_own_checker_is_content(suite: str) -> None:
    from gymnasium.utils.env_checker import check_env

    env = gymnasium.make(f"leanvla/{suite}-v0", render_mode="rgb_array", view_size=48)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            # A state has no bounds, and that is no oversight.
            warnings.filterwarnings("ignore", message=".*Box observation space")
            warnings.filterwarnings("ignore", message=".*For Box action spaces")
            check_env(env.unwrapped)
    finally:
        env.close()


@pytest.mark.gl
def test_an_expert_ends_an_episode_with_a_reward() -> None:
    env = gymnasium.make("leanvla/robosuite_lift-v0", views=("agentview",), view_size=32)
    try:
        seen, info = env.reset(seed=100)
        assert info["instruction"] == seen["instruction"] == "pick up the red cube"
        assert info["seed"] == 100
        assert seen["agentview"].shape == (32, 32, 3)
        assert env.unwrapped.render() is None
        for _ in range(150):
            seen, reward, done, late, info = env.step(env.unwrapped.expert_action())
            if done or late:
                break
        assert (reward, done, late, info["success"]) == (1.0, True, False, True)
        drawn = [env.reset(seed=s)[1]["seed"] for s in (1, None, 1, None)]
        assert drawn[1] == drawn[3] < 100_000
        assert np.isfinite(seen["state"]).all()
    finally:
        env.close()


def test_nothing_starts_before_the_first_reset() -> None:
    code = (
        "import sys, sim.gym, gymnasium; gymnasium.make('leanvla/tabletop-v0', "
        "disable_env_checker=True); print([m for m in ('mujoco', 'torch') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout == "[]\n"
    assert sim.gym.RENDER_SIZE == 256
