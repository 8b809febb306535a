"""What a LIBERO task is about now: read from the goals of its problem file and the true state."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sim.suites.instances import ARM, GRIPPER, geoms_of, instances
from sim.suites.phases import ACT_M, MOVED_M, NEAR_M, OVER_M, acting, at, picking

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaxtyping import Int32

    from sim.suites.libero.judge import Judge

_ROBOT = ("robot0_", "mount0_")
_FREE = 0  # the joint of what can be carried away


def next_goal(goals: Sequence[Sequence[str]], done: Sequence[bool]) -> Sequence[str]:
    """The first goal that is left, in the problem file's order; the last one when none is.

    What something still has to be put into is closed after that.

    Args:
        goals: e.g. `("in", "butter_1", "basket_1_contain_region")`.
        done: whether each holds.
    """
    left = [goal for goal, holds in zip(goals, done, strict=True) if not holds]
    filled = [goal[2] for goal in left if goal[0] == "in"]
    for goal in left:
        if goal[0] != "close" or not any(place.startswith(goal[1]) for place in filled):
            return goal
    return goals[-1]


class Roles:
    """Reads one episode of one task.

    Args:
        env: the scene, after its reset.
        judge: of the same episode.
    """

    def __init__(self, env: Any, judge: Judge) -> None:
        self._env, self._judge = env, judge
        self._model, self._data = env.sim.model._model, env.sim.data._data
        self._goals = env.parsed_problem["goal_state"]
        self._start = {goal[1]: judge.position(goal[1]) for goal in self._goals}

    def names(self) -> dict[str, str]:
        """Instances of what is asked for now, of the gripper, and of where the first should go.

        Of what is opened, closed or turned it is the part that moves. A bare region of a table has
        no geometry of its own: then there is no goal.
        """
        goal = self._goal()
        part = self._part(goal[1])
        roles = {"object": part or goal[1], "gripper": GRIPPER}
        place = self._place(goal[2]) if len(goal) == 3 else None
        return roles if place is None else {**roles, "goal": place}

    def instances(self) -> tuple[Int32[np.ndarray, " geoms"], dict[int, str]]:
        """The instance of every geom, and the name of every instance; the robot is the last.

        The moving part that a goal names is an instance of its own.
        """
        model = self._model
        bodies = {name: self._env.obj_body_id[name] for name in self._things()}
        parts = (self._part(word) for goal in self._goals for word in goal[1:])
        bodies |= {part: model.body(part).id for part in parts if part is not None}
        hand = next(i for i in range(model.nbody) if model.body(i).name.startswith("gripper0_"))
        return instances(model, {**bodies, GRIPPER: hand}, _ROBOT)

    def phase(self) -> str:
        """What the goal that is next asks for now, see `sim.suites.phases`."""
        goal, data = self._goal(), self._data
        told, tips = self.instances(), data.site("gripper0_grip_site").xpos
        robot, thing = geoms_of(told, GRIPPER, ARM), geoms_of(told, self.names()["object"])
        within = ACT_M if len(goal) == 2 else NEAR_M
        near = at(self._model, data, tips, robot, thing, within)
        if len(goal) == 2:
            return acting(near=near)
        s = self._judge.snapshot(goal)
        over = float(np.hypot(*(s.target - s.goal)[:2])) < OVER_M
        moved = np.linalg.norm(self._judge.position(goal[1]) - self._start[goal[1]]) > MOVED_M
        return picking(held=s.touched == 2, near=near, over=over, rests=over and bool(moved))

    def _goal(self) -> Sequence[str]:
        done = [bool(self._env._eval_predicate(goal)) for goal in self._goals]
        return next_goal(self._goals, done)

    def _things(self) -> tuple[str, ...]:
        return (*self._env.objects_dict, *self._env.fixtures_dict)

    def _place(self, name: str) -> str | None:
        """A drawer, or the object or fixture that a region belongs to; None for a table's."""
        whole = next((thing for thing in self._things() if name.startswith(thing)), None)
        return self._part(name) or whole

    def _part(self, name: str) -> str | None:
        """The body that moves on a joint of a thing or region; None where nothing does."""
        owner = self._env.object_sites_dict.get(name) or self._env.get_object(name)
        model = self._model
        for joint in getattr(owner, "joints", None) or ():
            number = model.joint(joint).id
            if model.jnt_type[number] != _FREE:
                return model.body(model.jnt_bodyid[number]).name
        return None
