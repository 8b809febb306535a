"""What a robosuite task is about: which instance is which, and the phase it is in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sim.suites.instances import ARM, GRIPPER, geoms_of, instances
from sim.suites.phases import ACT_M, MOVED_M, NEAR_M, OVER_M, acting, at, picking
from sim.suites.robosuite.spec import Task, roles_of

if TYPE_CHECKING:
    from jaxtyping import Float64, Int32, Int64

    from sim.suites.robosuite.judge import Judge

_FIXTURES = ("table", "bin1", "bin2", "peg1", "peg2")
_PARTS = {"door": "Door_door", "handle": "Door_latch"}
_ROBOT = ("robot0_", "gripper0_", "fixed_mount0_", "mount0_")


class Roles:
    """Reads one episode of one task.

    Args:
        env: the scene, after its reset.
        task: what is asked for.
        judge: of the same episode.
    """

    def __init__(self, env: Any, task: Task, judge: Judge) -> None:
        self._env, self._task, self._judge = env, task, judge
        self._model, self._data = env.sim.model._model, env.sim.data._data
        self._start = self._middle()

    def names(self) -> dict[str, str]:
        """Instances of the object, the gripper and, where there is one, the goal."""
        return roles_of(self._task)

    def instances(self) -> tuple[Int32[np.ndarray, " geoms"], dict[int, str]]:
        """The instance of every geom, and the name of every instance; the robot is the last."""
        model, things = self._model, self._judge.things
        present = {model.body(i).name: i for i in range(1, model.nbody)}
        bodies: dict[str, Any] = {name: present[thing.root_body] for name, thing in things.items()}
        bodies |= {name: present[name] for name in _FIXTURES if name in present}
        bodies |= {name: present[body] for name, body in _PARTS.items() if body in present}
        if self._task.scene == "Wipe":
            bodies["dirt"] = [present[m.root_body] for m in self._env.model.mujoco_arena.markers]
        hand = next(i for name, i in present.items() if name.startswith("gripper0_right_"))
        return instances(model, {**bodies, GRIPPER: hand}, _ROBOT)

    def phase(self) -> str:
        """What the task asks for in the present state, see `sim.suites.phases`."""
        told, tips = self.instances(), self._data.site("gripper0_right_grip_site").xpos
        robot, picked = geoms_of(told, GRIPPER, ARM), self._task.scene not in ("Door", "Wipe")
        within = NEAR_M if picked else ACT_M
        near = at(self._model, self._data, tips, robot, self._sought(), within)
        if not picked:
            return acting(near=near)
        s = self._judge.snapshot()
        away = float(np.hypot(*(s.goal - s.middle)[:2]))
        over = bool(self._task.goal) and away < OVER_M
        moved = np.linalg.norm(self._middle() - self._start) > MOVED_M
        return picking(held=s.touched == 2, near=near, over=over, rests=over and bool(moved))

    def _sought(self) -> Int64[np.ndarray, " k"]:
        """Geoms that the hand should come to: of the object, a door's handle, dirt that is left."""
        names = self.names()
        where = names["goal"] if self._task.scene == "Door" else names["object"]
        geoms = geoms_of(self.instances(), where)
        return geoms[self._model.geom_rgba[geoms, 3] > 0]

    def _middle(self) -> Float64[np.ndarray, " 3"]:
        return np.array(self._judge.grounding()["target"], np.float64)
