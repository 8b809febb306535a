"""A robosuite suite: robosuite's environments and predicates, our frames and words."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from policy.types import Observation
from sim.render import FrameRenderer, get_profile
from sim.suites.base import EpisodeStart, Scene, StepResult
from sim.suites.camera import project
from sim.suites.panda import proprioception
from sim.suites.robosuite.expert import expert_action
from sim.suites.robosuite.judge import Judge
from sim.suites.robosuite.roles import Roles
from sim.suites.robosuite.scene import begin, build, load_control, save_control, step
from sim.suites.robosuite.spec import VIEW_SIZE, Task, robosuite_spec, task_of
from sim.suites.saving import load_scene, save_scene
from sim.suites.tabletop.spec import RATE_HZ

if TYPE_CHECKING:
    from jaxtyping import Bool, Float32, Float64, Int32, UInt8


class _Stage(NamedTuple):
    """A compiled scene and its renderer."""

    env: Any
    renderer: FrameRenderer


class Robosuite:
    """One suite. One scene is compiled at a time: another takes a second, and memory for one.

    Args:
        suite: `robosuite`, or one of its groups.
        render_profile: `lowpoly` (the default here), `fast` or `default`.
        view_size: side of the square frames that `observe` gives, px.

    Raises:
        ValueError: on an unknown render profile.
    """

    def __init__(
        self, suite: str, render_profile: str | None = None, view_size: int = VIEW_SIZE
    ) -> None:
        self.spec = robosuite_spec(suite, render_profile)
        self._view_size = view_size
        self._stages: dict[str, _Stage] = {}
        self._episode = -2
        self.reset(0)

    def reset(self, seed: int) -> EpisodeStart:
        """Lay out the scene of `seed`, and let it come to rest."""
        self._task: Task = task_of(self.spec.name, seed)
        env = self._stage().env
        begin(env, seed)
        self._model, self._data = env.sim.model._model, env.sim.data._data
        self._judge = Judge(env, self._task)
        self._roles = Roles(env, self._task, self._judge)
        self._instruction = self._task.instruction
        self._episode, self._steps = self._episode + 1, 0
        return EpisodeStart(self._task.name, self._instruction, self._hash())

    def set_instruction(self, instruction: str) -> None:
        """Say something else to the policy; success still judges the task of the reset."""
        self._instruction = instruction

    def alternative_instruction(self, seed: int) -> str:
        """Another instruction that is valid in this scene and asks for something else.

        Raises:
            ValueError: when nothing else can be asked for in this scene.
        """
        others = self._task.others
        if not others:
            raise ValueError(f"nothing else can be asked for in the scene of {self._task.name}")
        return others[np.random.default_rng(seed).integers(len(others))]

    def observe(self) -> Observation:
        """Render all views and read proprioception."""
        views, stamp = self.spec.observation.views, self._steps / RATE_HZ
        frames = tuple(self.render(view, self._view_size) for view in views)
        return Observation(frames, self.proprioception(), self._instruction, stamp, self._episode)

    def proprioception(self) -> Float32[np.ndarray, " 8"]:
        """Hand position [m], hand orientation as axis times angle [rad], finger positions [m]."""
        robot = self._stage().env.robots[0]
        fingers = robot._ref_gripper_joint_pos_indexes["right"]
        return proprioception(self._data, robot.eef_site_id["right"], fingers)

    def step(self, action: Float32[np.ndarray, " 7"]) -> StepResult:
        """Advance one control step of 50 ms. Renders nothing.

        Args:
            action: one row of the suite's `ActionSpec`; values outside [-1, 1] are clipped.
        """
        step(self._stage().env, np.clip(np.asarray(action, np.float64), -1.0, 1.0))
        self._steps += 1
        return StepResult(self._judge.success(), self._judge.moved_another())

    def expert_action(self) -> Float32[np.ndarray, " 7"]:
        """The scripted expert's action in the present state.

        Raises:
            ValueError: for a task that it does not do.
        """
        if not self._task.expert:
            raise ValueError(f"{self._task.name} has no scripted expert")
        return expert_action(self._task, self._judge.snapshot())

    def grounding(self) -> dict[str, Float32[np.ndarray, " 3"]]:
        """World positions, metres, of `target` and, unless it is moved alone, of `goal`."""
        return self._judge.grounding()

    def roles(self) -> dict[str, str]:
        """Name in `segmentation` of the object, the gripper and, where there is one, the goal."""
        return self._roles.names()

    def phase(self) -> str:
        """What the task asks for now, see `sim.suites.phases`."""
        return self._roles.phase()

    def project(
        self, points: Float32[np.ndarray, "k 3"], view: str
    ) -> tuple[Float32[np.ndarray, "k 2"], Bool[np.ndarray, " k"]]:
        """Where world points, metres, appear in a view: (u, v) in [0, 1], and whether in frame."""
        return project(self._model, self._data, view, points)

    def segmentation(self, view: str) -> tuple[Int32[np.ndarray, "h w"], dict[int, str]]:
        """Instance mask of a view and the name of each id (0 is background)."""
        geoms = self._stage().renderer.geoms(self._data, view, self._view_size)
        instance, names = self._roles.instances()
        return np.append(instance, 0).astype(np.int32)[geoms], names

    def render(self, view: str, size: int) -> UInt8[np.ndarray, "size size 3"]:
        """One frame of a view at another size, for videos."""
        return self._stage().renderer.frame(self._data, view, size)

    def scene(self) -> Scene:
        """The compiled model and its state."""
        return Scene(self._model, self._data)

    def move_arm(self, offsets: Float64[np.ndarray, " 7"]) -> None:
        """Let the running episode begin with the joints elsewhere, by so many radians."""
        robot = self._stage().env.robots[0]
        self._data.qpos[robot._ref_joint_pos_indexes] += offsets
        self._data.qvel[robot._ref_joint_vel_indexes] = 0.0
        self._stage().env.sim.forward()
        robot.composite_controller.update_state()
        robot.composite_controller.reset()

    def save_state(self) -> Float64[np.ndarray, " state"]:
        """Everything that the rest of the running episode depends on, but for wiping's dirt."""
        control = save_control(self._stage().env)
        head = [self._steps, len(control)]
        return np.concatenate([head, control, save_scene(self.scene())])

    def load_state(self, state: Float64[np.ndarray, " state"]) -> None:
        """Return to a state that `save_state` gave in an episode of the same seed."""
        self._steps, scene = int(state[0]), 2 + int(state[1])
        load_scene(self.scene(), state[scene:])
        load_control(self._stage().env, state[2:scene])

    def close(self) -> None:
        """Free the simulators and their GL contexts."""
        while self._stages:
            _, stage = self._stages.popitem()
            stage.renderer.close()
            stage.env.close()

    def _stage(self) -> _Stage:
        scene = self._task.scene
        if scene not in self._stages:
            self.close()
            profile = get_profile(self.spec.render_profile)
            env = build(scene, profile)
            renderer = FrameRenderer(env.sim.model._model, profile)
            self._stages[scene] = _Stage(env, renderer)
        return self._stages[scene]

    def _hash(self) -> str:
        """Of the words, everything that moves, and everything that a reset may have placed."""
        model, data = self._model, self._data
        digest = hashlib.sha256(f"{self._task.name}:{self._instruction}".encode())
        for part in (data.qpos, data.qvel, model.body_pos, model.body_quat):
            digest.update(part.tobytes())
        return digest.hexdigest()
