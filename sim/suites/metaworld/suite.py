"""A Meta-World suite. Runs in the environment of Meta-World only, behind `sim.suites.remote`."""

from __future__ import annotations

import hashlib
import importlib
import warnings
from typing import TYPE_CHECKING, Any

import mujoco
import numpy as np

from policy.types import Observation
from sim.render import FrameRenderer, get_profile
from sim.suites.base import EpisodeStart, Scene, StepResult
from sim.suites.camera import project
from sim.suites.dress import dress
from sim.suites.metaworld.roles import Roles
from sim.suites.metaworld.spec import GOAL_MARK, RATE_HZ, WORDS, metaworld_spec, task_of

if TYPE_CHECKING:
    from jaxtyping import Bool, Float32, Int32, UInt8

    from sim.suites.base import TrainingSuite

TURNED = ("corner4",)
"""Cameras that hang upside down; their frames are turned by 180 degrees."""
_GROUPS = (0, 1, 2)


class Metaworld:
    """MT10 or MT50. One task's model is compiled at a time.

    Positions are drawn from the task's own ranges by the episode's seed.

    Args:
        suite: its name.
        render_profile: `default` or `fast`.
        view_size: side of the square frames that `observe` gives, px.
    """

    def __init__(self, suite: str, render_profile: str, view_size: int) -> None:
        self.spec = metaworld_spec(suite, render_profile)
        self._view_size, self._task = view_size, ""
        self._env: Any = None
        self._renderer: FrameRenderer | None = None
        self._episode = -2
        # The experts' own gains exceed what the environment clips to, and say so at every step.
        warnings.filterwarnings("ignore", message="Constant.*may be too high")
        self.reset(0)

    def _load(self, task: str) -> None:
        if task == self._task:
            return
        self.close()
        kinds = importlib.import_module("metaworld").ALL_V3_ENVIRONMENTS_GOAL_OBSERVABLE
        policies = importlib.import_module("metaworld.policies").ENV_POLICY_MAP
        self._env = kinds[f"{task}-v3-goal-observable"](seed=0)
        self._env._freeze_rand_vec, self._env.seeded_rand_vec = False, True
        self._model, self._data = self._env.model, self._env.data
        self._policy = policies[f"{task}-v3"]()
        profile = get_profile(self.spec.render_profile)
        self._renderer = FrameRenderer(self._model, profile, groups=_GROUPS, sites=True)
        self._task = task

    def reset(self, seed: int) -> EpisodeStart:
        """Begin the episode of `seed`: its task, its positions."""
        task = task_of(self.spec.name, seed)
        self._load(task)
        self._env.np_random = np.random.default_rng(seed)
        self._seen, _ = self._env.reset()
        self._roles = Roles(self._env, task)
        self._instruction = WORDS[task]
        self._episode, self._steps = self._episode + 1, 0
        return EpisodeStart(task, self._instruction, self._hash())

    def set_instruction(self, instruction: str) -> None:
        """Say something else to the policy; success still judges the task of the reset."""
        self._instruction = instruction

    def alternative_instruction(self, seed: int) -> str:
        """Meta-World's scenes are made for one task each.

        Raises:
            ValueError: always.
        """
        raise ValueError(f"nothing else can be asked for in the scene of {self._task}")

    def observe(self) -> Observation:
        """Render all views and read proprioception."""
        views, stamp = self.spec.observation.views, self._steps / RATE_HZ
        frames = tuple(self.render(view, self._view_size) for view in views)
        state = np.asarray(self._seen[:4], np.float32)
        return Observation(frames, state, self._instruction, stamp, self._episode)

    def step(self, action: Float32[np.ndarray, " 4"]) -> StepResult:
        """Advance one control step of 12.5 ms. Renders nothing."""
        self._seen, _, _, _, info = self._env.step(np.clip(action, -1.0, 1.0).astype(np.float32))
        self._steps += 1
        return StepResult(bool(info["success"]), False)

    def expert_action(self) -> Float32[np.ndarray, " 4"]:
        """The action of Meta-World's own scripted policy for the task."""
        action = self._policy.get_action(np.asarray(self._seen, np.float64))
        return np.clip(np.asarray(action, np.float32)[:4], -1.0, 1.0)

    def grounding(self) -> dict[str, Float32[np.ndarray, " 3"]]:
        """World positions, metres, of `target` (the object) and `goal` (where it should go)."""
        target, goal = self._env._get_pos_objects()[:3], self._env._target_pos
        return {"target": np.array(target, np.float32), "goal": np.array(goal, np.float32)}

    def segmentation(self, view: str) -> tuple[Int32[np.ndarray, "h w"], dict[int, str]]:
        """Instance mask of a view and the name of each id (0 is background)."""
        geoms, sites = self._frames().segments(self._data, view, self._view_size)
        instance, names = self._roles.instances()
        mask = np.append(instance, 0).astype(np.int32)[geoms]
        mark = len(names) + 1
        mask[sites == self._roles.mark()] = mark
        return np.ascontiguousarray(self._turn(view, mask)), {**names, mark: GOAL_MARK}

    def roles(self) -> dict[str, str]:
        """Name in `segmentation` of the object, the gripper and the goal, if the task has them."""
        return self._roles.names()

    def phase(self) -> str:
        """What the task asks for now, see `sim.suites.phases`."""
        return self._roles.phase()

    def render(self, view: str, size: int) -> UInt8[np.ndarray, "size size 3"]:
        """One frame of a view at another size, for videos."""
        return np.ascontiguousarray(self._turn(view, self._frames().frame(self._data, view, size)))

    def project(
        self, points: Float32[np.ndarray, "k 3"], view: str
    ) -> tuple[Float32[np.ndarray, "k 2"], Bool[np.ndarray, " k"]]:
        """Where world points, metres, appear in a view: (u, v) in [0, 1], and whether in frame."""
        uv, inside = project(self._model, self._data, view, points)
        return (1 - uv if view in TURNED else uv), inside

    def scene(self) -> Scene:
        """The compiled model and its state."""
        return Scene(self._model, self._data)

    def close(self) -> None:
        """Free the simulator and its GL contexts."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None
        if self._env is not None:
            self._env.close()
            self._env = None
        self._task = ""

    def _frames(self) -> FrameRenderer:
        if self._renderer is None:
            raise RuntimeError(f"{self.spec.name} was closed")
        return self._renderer

    @staticmethod
    def _turn(view: str, frame: np.ndarray) -> np.ndarray:
        return frame[::-1, ::-1] if view in TURNED else frame

    def _hash(self) -> str:
        model, data = self._model, self._data
        mujoco.mj_forward(model, data)
        digest = hashlib.sha256(self._task.encode())
        goal = np.asarray(self._env._target_pos, np.float64)
        for part in (data.qpos, data.qvel, data.mocap_pos, model.body_pos, model.site_pos, goal):
            digest.update(np.ascontiguousarray(part).tobytes())
        return digest.hexdigest()


def make(views: list[str] | None, perturb: dict[str, float], **options: Any) -> TrainingSuite:
    """A suite with some of its cameras, perturbed; `options` are those of `Metaworld`."""
    return dress(Metaworld(**options), tuple(views) if views else None, perturb)
