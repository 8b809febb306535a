"""A LIBERO suite. Runs in the environment of LIBERO only, behind `sim.suites.remote`.

One task's model is compiled at a time: an episode of the same task begins in milliseconds, another
task takes seconds.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from policy.types import Observation
from sim.render import FrameRenderer, get_profile
from sim.suites.base import EpisodeStart, Scene, StepResult
from sim.suites.camera import project
from sim.suites.dress import dress
from sim.suites.libero.convert import STATES
from sim.suites.libero.expert import expert_action
from sim.suites.libero.judge import Judge, other_instruction
from sim.suites.libero.roles import Roles
from sim.suites.libero.scene import (
    begin,
    build,
    draw,
    load_benchmark,
    load_control,
    save_control,
    tasks_of,
)
from sim.suites.libero.spec import (
    RATE_HZ,
    WAIT_ACTION,
    WAIT_STEPS,
    axis_angle,
    libero_spec,
    place_of,
)
from sim.suites.saving import load_scene, save_scene

if TYPE_CHECKING:
    from jaxtyping import Bool, Float32, Float64, Int32, UInt8

    from sim.suites.base import TrainingSuite


class Libero:
    """One of the five suites.

    Frames are those of the published evaluations: robosuite gives them upside down and they are
    turned by 180 degrees, so that left and right are swapped as in a mirror.

    Args:
        suite: its name.
        render_profile: `default`, `fast` or `lowpoly`.
        view_size: side of the square frames that `observe` gives, px.
        assets: folder of meshes and textures.
        folder: folder of the environment, where the initial states are.
    """

    def __init__(
        self, suite: str, render_profile: str, view_size: int, assets: str, folder: str
    ) -> None:
        self.spec = libero_spec(suite, render_profile)
        load_benchmark(Path(assets), Path(folder) / "config")
        self._folder, self._view_size = Path(folder), view_size
        self._tasks, self._task = tasks_of(suite), -1
        self._env: Any = None
        self._renderer: FrameRenderer | None = None
        self._episode = -2
        self.reset(0)  # compiles what steps need, before anybody waits for a step

    def _load(self, task: int) -> None:
        if task == self._task:
            return
        self.close()
        name, profile = self._tasks[task].name, get_profile(self.spec.render_profile)
        with np.load(self._folder / STATES, allow_pickle=False) as tables:
            self._states = tables[f"{self.spec.name}/{name}"]
        self._env = build(self._tasks[task], profile)
        self._model, self._data = self._env.sim.model._model, self._env.sim.data._data
        self._renderer = FrameRenderer(self._model, profile)
        self._task = task

    def reset(self, seed: int) -> EpisodeStart:
        """Begin the episode of `seed`: its task, its initial state, ten steps of waiting."""
        task, state = place_of(self.spec.name, seed)
        self._load(task)
        first = draw(self._env, seed) if state is None else self._states[state]
        begin(self._env, first)
        fixed = self._model.body_pos.tobytes() + self._model.body_quat.tobytes()
        content = self._tasks[task].bddl.read_bytes() + first.tobytes() + fixed
        for _ in range(WAIT_STEPS):
            self._env.step(np.array(WAIT_ACTION))
        self._judge = Judge(self._env, self._data)
        self._roles = Roles(self._env, self._judge)
        self._instruction = self._tasks[task].instruction
        self._episode, self._steps = self._episode + 1, 0
        start = hashlib.sha256(content).hexdigest()
        return EpisodeStart(self._tasks[task].name, self._instruction, start)

    def set_instruction(self, instruction: str) -> None:
        """Say something else to the policy; success still judges the task of the reset."""
        self._instruction = instruction

    def alternative_instruction(self, seed: int) -> str:
        """The instruction of another task of this suite that can be done in this scene."""
        return other_instruction(self._tasks, self._task, self._judge, seed)

    def observe(self) -> Observation:
        """Render both views and read proprioception."""
        views = self.spec.observation.views
        frames = tuple(self.render(view, self._view_size) for view in views)
        stamp = self._steps / RATE_HZ
        return Observation(frames, self.proprioception(), self._instruction, stamp, self._episode)

    def proprioception(self) -> Float32[np.ndarray, " 8"]:
        """Hand position [m], hand orientation as axis times angle [rad], finger positions [m]."""
        position = self._data.site("gripper0_grip_site").xpos
        quat = self._data.body("robot0_right_hand").xquat
        fingers = [self._data.joint(f"gripper0_finger_joint{i}").qpos[0] for i in (1, 2)]
        return np.concatenate([position, axis_angle(quat), fingers]).astype(np.float32)

    def step(self, action: Float32[np.ndarray, " 7"]) -> StepResult:
        """Advance one control step of 50 ms. Renders nothing."""
        self._env.step(np.asarray(action, np.float64))
        self._steps += 1
        return StepResult(bool(self._env._check_success()), self._judge.moved_another())

    def expert_action(self) -> Float32[np.ndarray, " 7"]:
        """The scripted expert's action; `libero_object` alone has one."""
        if self.spec.name != "libero_object":
            raise ValueError(f"{self.spec.name} has no scripted expert: libero_object alone has")
        return expert_action(self._judge.snapshot())

    def grounding(self) -> dict[str, Float32[np.ndarray, " 3"]]:
        """World positions, metres, of `target` and, unless it is moved alone, of `goal`."""
        return self._judge.grounding()

    def roles(self) -> dict[str, str]:
        """Name in `segmentation` of the object, the gripper and the goal of what is next."""
        return self._roles.names()

    def phase(self) -> str:
        """What the task asks for now, see `sim.suites.phases`."""
        return self._roles.phase()

    def segmentation(self, view: str) -> tuple[Int32[np.ndarray, "h w"], dict[int, str]]:
        """Instance mask of a view and the name of each id (0 is background)."""
        geoms = self._frames().geoms(self._data, view, self._view_size)[:, ::-1]
        instance, names = self._roles.instances()
        return np.append(instance, 0).astype(np.int32)[geoms], names

    def render(self, view: str, size: int) -> UInt8[np.ndarray, "size size 3"]:
        """One frame of a view at another size."""
        return np.ascontiguousarray(self._frames().frame(self._data, view, size)[:, ::-1])

    def project(
        self, points: Float32[np.ndarray, "k 3"], view: str
    ) -> tuple[Float32[np.ndarray, "k 2"], Bool[np.ndarray, " k"]]:
        """Where world points, metres, appear in a view: (u, v) in [0, 1], and whether in frame."""
        return project(self._model, self._data, view, points, mirrored=True)

    def scene(self) -> Scene:
        """The compiled model and its state."""
        return Scene(self._model, self._data)

    def move_arm(self, offsets: Float64[np.ndarray, " 7"]) -> None:
        """Let the running episode begin with the joints elsewhere, by so many radians."""
        robot = self._env.robots[0]
        self._data.qpos[robot._ref_joint_pos_indexes] += offsets
        self._data.qvel[robot._ref_joint_vel_indexes] = 0.0
        self._env.sim.forward()
        robot.controller.update(force=True)
        robot.controller.reset_goal()

    def save_state(self) -> Float64[np.ndarray, " state"]:
        """Everything that the rest of the running episode depends on."""
        control = save_control(self._env)
        head = [self._steps, len(control)]
        return np.concatenate([head, control, save_scene(self.scene())])

    def load_state(self, state: Float64[np.ndarray, " state"]) -> None:
        """Return to a state that `save_state` gave in an episode of the same seed."""
        self._steps, scene = int(state[0]), 2 + int(state[1])
        load_scene(self.scene(), state[scene:])
        load_control(self._env, state[2:scene])
        self._env._post_process()  # flames burn as the knobs are turned

    def close(self) -> None:
        """Free the simulator and its GL contexts."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None
        if self._env is not None:
            self._env.close()
            self._env = None
        self._task = -1

    def _frames(self) -> FrameRenderer:
        if self._renderer is None:
            raise RuntimeError(f"{self.spec.name} was closed")
        return self._renderer


def make(views: list[str] | None, perturb: dict[str, float], **options: Any) -> TrainingSuite:
    """A suite with some of its cameras, perturbed; `options` are those of `Libero`."""
    return dress(Libero(**options), tuple(views) if views else None, perturb)
