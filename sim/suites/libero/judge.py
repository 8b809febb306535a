"""What is asked for in a scene, what was moved, and what is where: read from its true state."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sim.suites.grasp import Snapshot, corners, narrow_turn
from sim.suites.libero.scene import SCENE_PREFIX

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaxtyping import Float32, Float64

    from sim.suites.libero.scene import Task

LIFTED_M = 0.04


class Judge:
    """Reads one episode of one task.

    Args:
        env: the scene, after its reset.
        data: its `mujoco.MjData`.
    """

    def __init__(self, env: Any, data: Any) -> None:
        self._env, self._data = env, data
        problem = env.parsed_problem
        self.objects = tuple(env.objects_dict)
        self._goal = problem["goal_state"][0]
        self._asked = set(env.obj_of_interest) | {w for s in problem["goal_state"] for w in s}
        self._start = {name: self._height(name) for name in self.objects}

    def moved_another(self) -> bool:
        """Whether an object that the task does not name was lifted."""
        others = [name for name in self.objects if name not in self._asked]
        return any(self._height(name) - self._start[name] > LIFTED_M for name in others)

    def grounding(self) -> dict[str, Float32[np.ndarray, " 3"]]:
        """Where the first goal's object is and, when it names a place, where that is."""
        return {
            role: self.position(name).astype(np.float32)
            for role, name in zip(("target", "goal"), self._goal[1:], strict=False)
        }

    def snapshot(self, asked: Sequence[str] | None = None) -> Snapshot:
        """What the expert reads of the present state.

        Args:
            asked: a goal that names an object and a place; None takes the first.
        """
        _, target, goal = asked or self._goal
        fingers = [self._data.joint(f"gripper0_finger_joint{i}").qpos[0] for i in (1, 2)]
        points = self._corners(target)
        return Snapshot(
            hand=self._data.site("gripper0_grip_site").xpos.copy(),
            width=float(fingers[0] - fingers[1]),
            target=(points.min(0) + points.max(0)) / 2,
            goal=self.position(goal),
            touched=self._touching(target),
            turn=narrow_turn(points[:, :2], self._closing()),
            height=float(points[:, 2].max()),
        )

    def position(self, name: str) -> Float64[np.ndarray, " 3"]:
        """Where an object, a fixture or a region is, m."""
        return np.array(self._env.object_states_dict[name].get_geom_state()["pos"])

    def _closing(self) -> Float64[np.ndarray, " 3"]:
        """From finger to finger: the line along which they close."""
        left, right = (self._data.body(f"gripper0_{side}finger").xpos for side in ("left", "right"))
        return left - right

    def _corners(self, name: str) -> Float64[np.ndarray, "points 3"]:
        """Corners of the boxes around an object's collision geometry."""
        geoms = (self._data.geom(geom).id for geom in self._env.objects_dict[name].contact_geoms)
        return corners(self._env.sim.model._model, self._data, geoms)

    def _touching(self, name: str) -> int:
        gripper, thing = self._env.robots[0].gripper, self._env.objects_dict[name]
        pads = gripper.important_geoms
        return sum(
            bool(self._env.check_contact(pads[finger], thing.contact_geoms))
            for finger in ("left_fingerpad", "right_fingerpad")
        )

    def _height(self, name: str) -> float:
        return float(self._data.xpos[self._env.obj_body_id[name]][2])


def other_instruction(tasks: Sequence[Task], task: int, judge: Judge, seed: int) -> str:
    """The instruction of another of `tasks` that this scene allows.

    Raises:
        ValueError: when the suite has none.
    """
    others = [t for t in tasks if t != tasks[task] and _fits(t.name, tasks[task], judge)]
    if not others:
        raise ValueError(f"no other task of this suite fits the scene of {tasks[task].name}")
    return others[np.random.default_rng(seed).integers(len(others))].instruction


def _fits(name: str, task: Task, judge: Judge) -> bool:
    suite = task.bddl.parent.name
    if suite == "libero_goal":  # its ten tasks share one scene
        return True
    if suite == "libero_object":
        target = name.removeprefix("pick_up_the_").removesuffix("_and_place_it_in_the_basket")
        return f"{target}_1" in judge.objects
    scene = SCENE_PREFIX.match(name)
    return scene is not None and task.name.startswith(scene.group())
