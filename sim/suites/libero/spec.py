"""What the LIBERO suites show and take, and how a seed becomes an episode. Starts no simulator.

Settings are those of the evaluations of OpenVLA (openvla/openvla, `experiments/robot/libero/
run_libero_eval.py`) and OpenVLA-OFT (moojink/openvla-oft, the same file); the two agree on all of
them.
"""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from policy.openvla.platforms import PLATFORMS
from policy.types import ActionSpec, Observation, ObservationSpec
from sim.render import get_profile
from sim.suites.base import EVAL_SEED_LIMIT, SuiteSpec

if TYPE_CHECKING:
    from jaxtyping import Float32

MAX_STEPS = {
    "libero_spatial": 220,
    "libero_object": 280,
    "libero_goal": 300,
    "libero_10": 520,
    "libero_90": 400,
}
TASKS = {name: 90 if name == "libero_90" else 10 for name in MAX_STEPS}
STATES_PER_TASK = 50
WAIT_STEPS = 10
WAIT_ACTION = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -1.0)
VIEWS = ("agentview", "robot0_eye_in_hand")
VIEW_SIZE = 256
RATE_HZ = 20.0
GRIPPER = "-1 open, +1 close"
RENDER_PROFILE = "default"
ROLES = ("object", "gripper", "goal")
_PLATFORM = next(platform for platform in PLATFORMS if platform.name == "libero")


class Place(NamedTuple):
    """Where an episode begins: a task of the suite, and one of its 50 initial states.

    `state` is None where the scene is drawn from the problem file's regions instead.
    """

    task: int
    state: int | None


def place_of(suite: str, seed: int) -> Place:
    """The episode of a seed: consecutive seeds walk through all tasks, then to the next state.

    Seeds 0 to 499 (4,499 for `libero_90`) are the published evaluation's episodes, each once.
    Training seeds (from 100,000 on) begin in scenes of their own, so that nothing is trained on the
    states that are evaluated.
    """
    state, task = divmod(seed, TASKS[suite])
    return Place(task, state % STATES_PER_TASK if seed < EVAL_SEED_LIMIT else None)


@lru_cache
def task_names(suite: str) -> tuple[str, ...]:
    """The benchmark's names of a suite's tasks, in its order."""
    path = Path(__file__).with_name("tasks.json")
    return tuple(json.loads(path.read_text(encoding="utf-8"))[suite])


def libero_spec(suite: str, render_profile: str | None = None) -> SuiteSpec:
    """The spec of a suite; without a render profile, that of `default`.

    Raises:
        ValueError: on an unknown render profile.
    """
    names = (*_PLATFORM.action_names[:-1], "gripper [-1..1]")
    return SuiteSpec(
        name=suite,
        observation=ObservationSpec(VIEWS, _PLATFORM.state_names),
        action=ActionSpec(names, _PLATFORM.chunk, RATE_HZ, _PLATFORM.rotation, GRIPPER),
        max_steps=MAX_STEPS[suite],
        render_profile=get_profile(render_profile or RENDER_PROFILE).name,
        roles=ROLES,
        saves=True,
        scenes=TASKS[suite],
    )


def make_example() -> tuple[Observation, Float32[np.ndarray, " 7"]]:
    """An observation and an action in the form that these suites give and take."""
    rng = np.random.default_rng(0)
    frames = tuple(rng.integers(0, 256, (VIEW_SIZE, VIEW_SIZE, 3), dtype=np.uint8) for _ in VIEWS)
    state = np.array([-0.05, 0.0, 0.25, 3.14, 0.0, 0.0, 0.04, -0.04], np.float32)
    instruction = "pick up the milk and place it in the basket"
    return Observation(frames, state, instruction), np.array(WAIT_ACTION, np.float32)


def axis_angle(quat: Float32[np.ndarray, " 4"]) -> Float32[np.ndarray, " 3"]:
    """A quaternion (w, x, y, z) as axis times angle, angle in [0, 2 pi].

    The sign of the quaternion is kept, as the published evaluations keep it: the same orientation
    may come as two different vectors.
    """
    w = float(np.clip(quat[0], -1.0, 1.0))
    sine = np.sqrt(1.0 - w * w)
    if np.isclose(sine, 0.0):
        return np.zeros(3, np.float32)
    return (np.asarray(quat[1:]) * 2.0 * np.arccos(w) / sine).astype(np.float32)
