"""What a Meta-World task is about: which instance is which, and the phase it is in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sim.suites.instances import ARM, GRIPPER, geoms_of, instances
from sim.suites.metaworld.spec import GOAL_MARK, PICKED, roles_of
from sim.suites.phases import ACT_M, MOVED_M, NEAR_M, OVER_M, acting, at, gap, picking, touching

if TYPE_CHECKING:
    from jaxtyping import Float64, Int32, Int64

_ROBOT = (
    *("base", "controller_box", "pedestal", "right_", "head", "screen"),
    *("hand", "torso", "mocap"),
)
_PADS = ("leftpad_geom", "rightpad_geom")
_FINGERS = ("leftEndEffector", "rightEndEffector")


class Roles:
    """Reads one episode of one task.

    Args:
        env: Meta-World's environment, after its reset.
        task: its name.
    """

    def __init__(self, env: Any, task: str) -> None:
        self._env, self._task = env, task
        self._model, self._data = env.model, env.data
        self._start = self._middle()

    def names(self) -> dict[str, str]:
        """Instances of the object, the gripper and the goal, as far as the task has them."""
        return roles_of(self._task)

    def instances(self) -> tuple[Int32[np.ndarray, " geoms"], dict[int, str]]:
        """The instance of every geom, and the name of every instance; the robot is the last.

        The part of a thing that the task is about is an instance of its own.
        """
        model = self._model
        named = {model.body(i).name or f"body {i}": i for i in range(1, model.nbody)}
        bodies = {
            name: body
            for name, body in named.items()
            if model.body_parentid[body] == 0 and not name.startswith(_ROBOT)
        }
        asked = (name for name in self.names().values() if name in named)
        bodies |= {name: named[name] for name in asked}
        return instances(model, {**bodies, GRIPPER: named["hand"]}, _ROBOT)

    def mark(self) -> int:
        """The site that shows the goal, when the goal is a mark and no thing; else -2, none."""
        if self.names().get("goal") != GOAL_MARK:
            return -2
        drawn = np.flatnonzero(self._model.site_bodyid == 0)
        away = np.linalg.norm(self._data.site_xpos[drawn] - self._env._target_pos, axis=1)
        return int(drawn[away.argmin()])

    def phase(self) -> str:
        """What the task asks for in the present state, see `sim.suites.phases`.

        A task without an object is all `reach`.
        """
        told, picked = self.instances(), self._task in PICKED
        robot, geoms = geoms_of(told, GRIPPER, ARM), geoms_of(told, self.names().get("object", ""))
        tips = np.mean([self._data.site(name).xpos for name in _FINGERS], axis=0)
        near = at(self._model, self._data, tips, robot, geoms, NEAR_M if picked else ACT_M)
        if not picked:
            return acting(near=near)
        goal = np.asarray(self._env._target_pos, np.float64)
        over = gap(self._model, self._data, geoms, goal) < OVER_M
        moved = np.linalg.norm(self._middle() - self._start) > MOVED_M
        return picking(held=self._held(geoms), near=near, over=over, rests=over and bool(moved))

    def _held(self, geoms: Int64[np.ndarray, " k"]) -> bool:
        """Whether both pads touch the object."""
        pads = (np.array([self._model.geom(pad).id]) for pad in _PADS)
        return all(touching(self._data, pad, geoms) for pad in pads)

    def _middle(self) -> Float64[np.ndarray, " 3"]:
        return np.array(self._env._get_pos_objects()[:3], np.float64)
