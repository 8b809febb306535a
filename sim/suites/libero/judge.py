"""What is asked for in a scene, what was moved, and what is where: read from its true state."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaxtyping import Float32, Float64, Int32

    from sim.suites.libero.scene import Task

LIFTED_M = 0.04
_FITS_M = 0.055
_SCENE = re.compile(r"^[A-Z_]+SCENE\d+_")


class Snapshot(NamedTuple):
    """What the expert reads. Positions in metres.

    Attributes:
        hand: between the finger tips.
        width: opening of the gripper, m.
        target: the object asked for.
        goal: where it should go.
        touched: fingers that touch the target, 0 to 2.
        turn: rotation about the vertical, rad, that puts the fingers across the target's narrow
            side.
        height: height of the target's highest point.
    """

    hand: Float64[np.ndarray, " 3"]
    width: float
    target: Float64[np.ndarray, " 3"]
    goal: Float64[np.ndarray, " 3"]
    touched: int
    turn: float
    height: float


class Judge:
    """Reads one episode of one task.

    Args:
        env: the scene, after its reset.
        data: its `mujoco.MjData`.
    """

    def __init__(self, env: Any, data: Any) -> None:
        self._env, self._data = env, data
        problem = env.parsed_problem
        self.instruction = " ".join(problem["language_instruction"])
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
            role: np.array(self._position(name), np.float32)
            for role, name in zip(("target", "goal"), self._goal[1:], strict=False)
        }

    def instances(self, model: Any) -> tuple[Int32[np.ndarray, " geoms"], dict[int, str]]:
        """The instance of every geom, and the name of every instance; the robot is the last."""
        names = (*self.objects, *self._env.fixtures_dict, "robot")
        ids = {self._env.obj_body_id[name]: i for i, name in enumerate(names[:-1], start=1)}
        for body in range(1, model.nbody):
            if model.body(body).name.startswith(("robot0_", "gripper0_", "mount0_")):
                ids.setdefault(body, len(names))
            ids.setdefault(body, ids.get(int(model.body_parentid[body]), 0))
        instance = np.array([ids.get(int(body), 0) for body in model.geom_bodyid], np.int32)
        return instance, dict(enumerate(names, start=1))

    def snapshot(self) -> Snapshot:
        """What the expert reads of the present state."""
        target, goal = self._goal[1], self._goal[2]
        fingers = [self._data.joint(f"gripper0_finger_joint{i}").qpos[0] for i in (1, 2)]
        points = self._corners(target)
        return Snapshot(
            hand=self._data.site("gripper0_grip_site").xpos.copy(),
            width=float(fingers[0] - fingers[1]),
            target=(points.min(0) + points.max(0)) / 2,
            goal=np.array(self._position(goal)),
            touched=self._touching(target),
            turn=_turn(points[:, :2], self._closing()),
            height=float(points[:, 2].max()),
        )

    def _closing(self) -> Float64[np.ndarray, " 3"]:
        """From finger to finger: the line along which they close."""
        left, right = (self._data.body(f"gripper0_{side}finger").xpos for side in ("left", "right"))
        return left - right

    def _corners(self, name: str) -> Float64[np.ndarray, "points 3"]:
        """Corners of the boxes around an object's collision geometry."""
        model, points = self._env.sim.model._model, []
        signs = np.array(np.meshgrid(*[(-1, 1)] * 3)).reshape(3, -1).T
        for geom in self._env.objects_dict[name].contact_geoms:
            i = self._data.geom(geom).id
            centre, half = model.geom_aabb[i][:3], model.geom_aabb[i][3:]
            local = centre + signs * half
            points.append(local @ self._data.geom_xmat[i].reshape(3, 3).T + self._data.geom_xpos[i])
        return np.concatenate(points)

    def _touching(self, name: str) -> int:
        gripper, thing = self._env.robots[0].gripper, self._env.objects_dict[name]
        pads = gripper.important_geoms
        return sum(
            bool(self._env.check_contact(pads[finger], thing.contact_geoms))
            for finger in ("left_fingerpad", "right_fingerpad")
        )

    def _position(self, name: str) -> Float64[np.ndarray, " 3"]:
        return np.asarray(self._env.object_states_dict[name].get_geom_state()["pos"])

    def _height(self, name: str) -> float:
        return float(self._data.xpos[self._env.obj_body_id[name]][2])


def _turn(points: Float64[np.ndarray, "k 2"], closing: Float64[np.ndarray, " 3"]) -> float:
    """The smallest turn that lays the fingers' line of motion along the narrow side.

    None where the object fits already, so that a round one never makes the hand turn.
    """
    now = np.arctan2(closing[1], closing[0])
    turns = np.radians(np.arange(-90, 91, 5))
    width = np.ptp(points @ np.stack([np.cos(now + turns), np.sin(now + turns)]), axis=0)
    if width[len(turns) // 2] <= max(_FITS_M, width.min() + 0.008):
        return 0.0
    return float(turns[np.argmin(width + 0.004 * np.abs(turns))])


def other_instruction(tasks: Sequence[Task], task: int, judge: Judge, seed: int) -> str:
    """The instruction of another of `tasks` that this scene allows.

    Raises:
        ValueError: when the suite has none.
    """
    others = [t.name for t in tasks if t != tasks[task] and _fits(t.name, tasks[task], judge)]
    if not others:
        raise ValueError(f"no other task of this suite fits the scene of {tasks[task].name}")
    name = others[np.random.default_rng(seed).integers(len(others))]
    return _SCENE.sub("", name).replace("_", " ")


def _fits(name: str, task: Task, judge: Judge) -> bool:
    suite = task.bddl.parent.name
    if suite == "libero_goal":  # its ten tasks share one scene
        return True
    if suite == "libero_object":
        target = name.removeprefix("pick_up_the_").removesuffix("_and_place_it_in_the_basket")
        return f"{target}_1" in judge.objects
    scene = _SCENE.match(name)
    return scene is not None and task.name.startswith(scene.group())
