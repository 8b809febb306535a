"""`tabletop`: language-conditioned tasks on robosuite's Panda, with physics and rendering apart."""

from __future__ import annotations

import hashlib
from functools import partial
from typing import TYPE_CHECKING

import mujoco
import numpy as np

from policy.types import Observation
from sim.meshes import decimate_xml
from sim.render import FrameRenderer, get_profile
from sim.suites.base import EpisodeStart, Scene, StepResult
from sim.suites.camera import project
from sim.suites.panda import proprioception
from sim.suites.tabletop.control import Controller
from sim.suites.tabletop.expert import PUSH_FAR, expert_action
from sim.suites.tabletop.layout import ARM_POSE, lane_is_free, sample_layout
from sim.suites.tabletop.phase import phase_of
from sim.suites.tabletop.scene import TabletopEnv, apply_layout
from sim.suites.tabletop.spec import RATE_HZ, tabletop_spec
from sim.suites.tabletop.state import Probe
from sim.suites.tabletop.tasks import (
    SIDES,
    is_success,
    is_wrong_object,
    receptacle_of,
    task_of_seed,
    tasks_of,
)

if TYPE_CHECKING:
    from jaxtyping import Bool, Float32, Float64, Int32, UInt8

    from sim.suites.tabletop.layout import Layout
    from sim.suites.tabletop.state import Snapshot
    from sim.suites.tabletop.tasks import Task

_FULL_STATE = mujoco.mjtState.mjSTATE_INTEGRATION


class Tabletop:
    """The suite. One compiled model; a reset edits it in place and takes a few milliseconds.

    Args:
        render_profile: `lowpoly` (the default here), `fast` or `default`.
        view_size: side of the square frames that `observe` gives, px.

    Raises:
        ValueError: on an unknown render profile.
    """

    def __init__(self, render_profile: str | None = None, view_size: int = 96) -> None:
        self.spec = tabletop_spec(render_profile)
        profile = get_profile(self.spec.render_profile)
        faces = profile.max_faces
        self._env = TabletopEnv(partial(decimate_xml, max_faces=faces) if faces else None)
        self._env.reset()
        self._model, self._data = self._env.sim.model._model, self._env.sim.data._data
        self._controller = Controller(self._env)
        self._substeps = round(1.0 / RATE_HZ / self._model.opt.timestep)
        self._renderer = FrameRenderer(self._model, profile)
        self._view_size = view_size
        self._probe = Probe(self._model)
        self._upright = self._upright_hand()
        self._episode, self._least_others = -2, 0
        self.reset(0)
        # robosuite compiles its kernels when they are first used: seconds in a new environment,
        # which a simulator has while it starts, and no episode has.
        self.step(np.zeros(7, np.float32))
        self.reset(0)

    def reset(self, seed: int) -> EpisodeStart:
        """Lay out the scene of `seed`: task, poses, colours, light."""
        self._task: Task = task_of_seed(seed)
        self._instruction = self._task.instruction
        rng = np.random.default_rng(seed)
        self.arrange(sample_layout(rng, self._task, self._least_others))
        return EpisodeStart(self._task.family, self._instruction, self._hash())

    def arrange(self, layout: Layout) -> None:
        """Begin an episode in a scene of one's own; task and instruction stay what they were."""
        self._layout = layout
        self._episode += 1
        self._steps = 0
        mujoco.mj_resetData(self._model, self._data)
        apply_layout(self._model, self._data, self._layout)
        self._controller.reset(self._layout.arm)
        mujoco.mj_forward(self._model, self._data)
        body = self._probe.body
        self._start = {c: self._data.xpos[body[c]].copy() for c in self._layout.movables}

    def set_instruction(self, instruction: str) -> None:
        """Say something else to the policy; success still judges the task of the reset."""
        self._instruction = instruction

    def alternative_instruction(self, seed: int) -> str:
        """Another instruction that is valid in this scene and asks for something else."""
        others = [t for t in self._feasible() if _asks_for_something_else(t, self._task)]
        return others[np.random.default_rng(seed).integers(len(others))].instruction

    def _feasible(self) -> list[Task]:
        """Tasks that this scene allows: all but pushes along an obstructed lane."""
        movables = self._layout.movables
        tasks = tasks_of((colour, m.shape) for colour, m in movables.items())
        return [t for t in tasks if t.family != "push" or self._can_push(t)]

    def _can_push(self, task: Task) -> bool:
        movables = self._layout.movables
        others = [m.xy for colour, m in movables.items() if colour != task.colour]
        return lane_is_free(np.array([movables[task.colour].xy, *others]), task.goal)

    def observe(self) -> Observation:
        """Render all views and read proprioception."""
        views = self.spec.observation.views
        frames = tuple(self._renderer.frame(self._data, v, self._view_size) for v in views)
        return Observation(
            frames, self.proprioception(), self._instruction, self._steps / RATE_HZ, self._episode
        )

    def proprioception(self) -> Float32[np.ndarray, " 8"]:
        """Hand position [m], hand orientation as axis times angle [rad], finger positions [m]."""
        return proprioception(self._data, self._probe.eef, self._probe.fingers)

    def step(self, action: Float32[np.ndarray, " 7"]) -> StepResult:
        """Advance one control step of 50 ms. Renders nothing.

        Args:
            action: one row of the suite's `ActionSpec`; values outside [-1, 1] are clipped.
        """
        action = np.clip(np.asarray(action, dtype=np.float64), -1.0, 1.0)
        self._controller.set_goal(action)
        for _ in range(self._substeps):
            self._controller.apply()
            mujoco.mj_step2(self._model, self._data)
            mujoco.mj_step1(self._model, self._data)
        self._steps += 1
        s = self.snapshot()
        return StepResult(is_success(self._task, s), is_wrong_object(self._task, s))

    def expert_action(self) -> Float32[np.ndarray, " 7"]:
        """The scripted expert's action in the present state; it recovers from slips."""
        return expert_action(self._task, self.snapshot(), self._upright)

    def snapshot(self) -> Snapshot:
        """What the judge and the expert read of the present state."""
        return self._probe.read(self._data, self._layout, self._start)

    def grounding(self) -> dict[str, Float32[np.ndarray, " 3"]]:
        """World positions, metres, of `target` and, unless the task is `pick`, of `goal`."""
        points = {"target": self._data.xpos[self._probe.body[self._task.colour]]}
        receptacle = receptacle_of(self._task)
        if receptacle is not None:
            points["goal"] = self._data.xpos[self._probe.body[receptacle]]
        elif self._task.goal in SIDES:
            shove = (0.0, SIDES[self._task.goal] * PUSH_FAR, 0.0)
            points["goal"] = self._start[self._task.colour] + shove
        return {name: point.astype(np.float32) for name, point in points.items()}

    def project(
        self, points: Float32[np.ndarray, "k 3"], view: str
    ) -> tuple[Float32[np.ndarray, "k 2"], Bool[np.ndarray, " k"]]:
        """Where world points, metres, appear in a view: (u, v) in [0, 1], and whether in frame."""
        return project(self._model, self._data, view, points)

    def segmentation(self, view: str) -> tuple[Int32[np.ndarray, "h w"], dict[int, str]]:
        """Instance mask of a view and the name of each id (0 is background)."""
        geoms = self._renderer.geoms(self._data, view, self._view_size)
        instance, names = self._probe.instances(self._layout)
        return np.append(instance, 0).astype(np.int32)[geoms], names

    def roles(self) -> dict[str, str]:
        """The target, the gripper, and the receptacle of `put` and `stack`."""
        names = {"object": f"{self._task.colour}_{self._task.shape}", "gripper": "gripper"}
        receptacle = receptacle_of(self._task)
        return names if receptacle is None else {**names, "goal": receptacle}

    def phase(self) -> str:
        """What the task asks for now, see `sim.suites.tabletop.phase`."""
        return phase_of(self._task, self.snapshot())

    def render(self, view: str, size: int) -> UInt8[np.ndarray, "size size 3"]:
        """One frame of a view at another size, for videos."""
        return self._renderer.frame(self._data, view, size)

    def close(self) -> None:
        """Free the simulator and its GL contexts."""
        self._renderer.close()
        self._env.close()

    def scene(self) -> Scene:
        """The compiled model and its state."""
        return Scene(self._model, self._data)

    def add_distractors(self, least: int) -> None:
        """From the next reset on: at least so many objects beside the target, up to three."""
        self._least_others = least

    def move_arm(self, offsets: Float64[np.ndarray, " 7"]) -> None:
        """Let the running episode begin with the joints elsewhere, by so many radians."""
        self._controller.reset(np.add(self._layout.arm, offsets).tolist())
        mujoco.mj_forward(self._model, self._data)

    def save_state(self) -> Float64[np.ndarray, " state"]:
        """Everything that the physics of the running episode depends on, as one vector."""
        state = np.zeros(mujoco.mj_stateSize(self._model, _FULL_STATE))
        mujoco.mj_getState(self._model, self._data, state, _FULL_STATE)
        return np.concatenate([self._controller.grip, [self._steps], state])

    def load_state(self, state: Float64[np.ndarray, " state"]) -> None:
        """Return to a state that `save_state` gave in an episode of the same seed."""
        self._controller.grip = state[:2].copy()
        self._steps = int(state[2])
        mujoco.mj_setState(self._model, self._data, state[3:], _FULL_STATE)
        mujoco.mj_step1(self._model, self._data)
        self._controller.refresh()

    def _upright_hand(self) -> Float64[np.ndarray, "3 3"]:
        """The hand's orientation at the nominal arm pose."""
        for index, angle in enumerate(ARM_POSE, start=1):
            self._data.joint(f"robot0_joint{index}").qpos[:] = angle
        mujoco.mj_forward(self._model, self._data)
        return self._data.site_xmat[self._probe.eef].reshape(3, 3).copy()

    def _hash(self) -> str:
        digest = hashlib.sha256(repr((self._layout, self._instruction)).encode())
        for state in (self._data.qpos, self._data.qvel):
            digest.update(state.tobytes())
        return digest.hexdigest()


def _asks_for_something_else(task: Task, asked: Task) -> bool:
    """Whether doing `task` leaves `asked` undone: another target, or the same verb elsewhere."""
    if task.colour != asked.colour:
        return True
    return task.family == asked.family and task.goal != asked.goal
