"""What is asked for in a robosuite scene, what was moved, and what is where."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sim.suites.grasp import Snapshot, corners, narrow_turn

if TYPE_CHECKING:
    from jaxtyping import Float32, Float64

    from sim.suites.robosuite.spec import Task

LIFTED_M = 0.04
_GRID = np.stack(np.meshgrid(np.linspace(0, 1, 5), np.linspace(0, 1, 5)), -1).reshape(-1, 2)


class Judge:
    """Reads one episode of one task.

    Args:
        env: the scene, after its reset.
        task: what is asked for.
    """

    def __init__(self, env: Any, task: Task) -> None:
        self._env, self._task = env, task
        self._model, self._data = env.sim.model._model, env.sim.data._data
        self.things = {thing.name: thing for thing in _things(env, task.scene)}
        self._body = {name: self._model.body(t.root_body).id for name, t in self.things.items()}
        self._start = {name: self._at(body)[2] for name, body in self._body.items()}

    def success(self) -> bool:
        """Whether the task is done: robosuite's own predicate, of the object that is asked for."""
        done, scene = self._env._check_success(), self._task.scene
        if scene == "PickPlace":
            return bool(self._env.objects_in_bins[self._place()])
        if scene == "NutAssembly":
            return bool(self._env.objects_on_pegs[self._place()])
        return bool(done)

    def moved_another(self) -> bool:
        """Whether an object that the task does not name was lifted."""
        named = (self._task.target, self._task.goal)
        others = (name for name in self._body if name not in named)
        return any(self._at(self._body[n])[2] - self._start[n] > LIFTED_M for n in others)

    def grounding(self) -> dict[str, Float32[np.ndarray, " 3"]]:
        """Where `target` is and, unless it is moved alone, `goal`."""
        points = {"target": self._target()}
        if self._task.goal:
            points["goal"] = self._goal()
        return {name: np.array(point, np.float32) for name, point in points.items()}

    def snapshot(self) -> Snapshot:
        """What the expert reads of the present state."""
        data = self._data
        fingers = [data.joint(f"gripper0_right_finger_joint{i}").qpos[0] for i in (1, 2)]
        left, right = (data.body(f"gripper0_right_{s}finger").xpos for s in ("left", "right"))
        whole = self._corners(self._task.target)
        nut = self._task.scene == "NutAssembly"
        points = self._handle() if nut else whole
        hand = data.site("gripper0_right_grip_site")
        down = hand.xmat.reshape(3, 3)[:, 2]
        return Snapshot(
            hand=hand.xpos.copy(),
            width=float(fingers[0] - fingers[1]),
            target=(points.min(0) + points.max(0)) / 2,
            goal=np.array(self._goal() if self._task.goal else self._target()),
            touched=self._touching(),
            turn=self._turn(points, left - right, across=nut),
            height=float(points[:, 2].max()),
            low=float(whole[:, 2].min()),
            table=self._table(),
            tilt=(-float(down[1]), float(down[0])),
            centre=self._target().copy() if nut else None,
            align=self._align() if self._task.name == "square_nut" else 0.0,
        )

    def _turn(
        self, points: Float64[np.ndarray, "k 3"], closing: Float64[np.ndarray, " 3"], across: bool
    ) -> float:
        """A handle is taken across, whatever else would fit between the fingers."""
        flat, beside = points[:, :2], self._beside(points)
        return (
            narrow_turn(flat, closing, beside, 0.0)
            if across
            else narrow_turn(flat, closing, beside)
        )

    def _handle(self) -> Float64[np.ndarray, "points 3"]:
        """Corners of the part that a nut is taken by."""
        thing = self.things[self._task.target]
        site = self._data.site(thing.important_sites["handle"]).xpos
        geoms = [self._data.geom(geom).id for geom in thing.contact_geoms]
        nearest = min(geoms, key=lambda geom: np.linalg.norm(self._data.geom_xpos[geom] - site))
        return corners(self._model, self._data, [nearest])

    def _align(self) -> float:
        """The turn after which the square nut fits its peg, whose sides lie along the axes."""
        matrix = self._data.xmat[self._body[self._task.target]].reshape(3, 3)
        yaw = np.arctan2(matrix[1, 0], matrix[0, 0])
        return float(-((yaw + np.pi / 4) % (np.pi / 2) - np.pi / 4))

    def _target(self) -> Float64[np.ndarray, " 3"]:
        if self._task.scene == "Door":
            return self._data.site_xpos[self._env.door_handle_site_id]
        if self._task.scene == "Wipe":
            return self._env._get_wipe_information()[1]
        return self._at(self._body[self._task.target])

    def _goal(self) -> Float64[np.ndarray, " 3"]:
        """Where the target's lowest point should rest."""
        if self._task.scene == "PickPlace":
            return self._env.target_bin_placements[self._place()]
        if self._task.scene == "NutAssembly":
            peg = self._model.body(f"peg{self._place() + 1}").id
            around = corners(
                self._model, self._data, np.flatnonzero(self._model.geom_bodyid == peg)
            )
            return np.array([*self._at(peg)[:2], around[:, 2].max()])
        top = self._corners(self._task.goal)[:, 2].max()
        return np.array([*self._at(self._body[self._task.goal])[:2], top])

    def _table(self) -> float:
        """Height of what the target stands on at first."""
        if self._task.scene == "PickPlace":
            return float(self._env.bin1_pos[2])
        return float(self._env.table_offset[2])

    def _place(self) -> int:
        """The target's number in robosuite's own lists."""
        return list(self.things).index(self._task.target)

    def _corners(self, name: str) -> Float64[np.ndarray, "points 3"]:
        geoms = (self._data.geom(geom).id for geom in self.things[name].contact_geoms)
        return corners(self._model, self._data, geoms)

    def _beside(self, points: Float64[np.ndarray, "points 3"]) -> Float64[np.ndarray, "n 2"]:
        """From above, what stands near the target and as high as it: corners and between them."""
        found = [np.zeros((0, 2))]
        for name in self.things:
            if name == self._task.target or self._at(self._body[name])[2] < self._table():
                continue
            around = self._corners(name)
            if around[:, 2].max() < points[:, 2].max() - 0.03:
                continue
            low, high = around[:, :2].min(0), around[:, :2].max(0)
            found.append(around[:, :2])
            found.append(low + (high - low) * _GRID)
        return np.concatenate(found)

    def _touching(self) -> int:
        gripper = self._env.robots[0].gripper["right"]
        pads, thing = gripper.important_geoms, self.things[self._task.target]
        return sum(
            bool(self._env.check_contact(pads[finger], thing.contact_geoms))
            for finger in ("left_fingerpad", "right_fingerpad")
        )

    def _at(self, body: int) -> Float64[np.ndarray, " 3"]:
        return self._data.xpos[body]


def _things(env: Any, scene: str) -> tuple[Any, ...]:
    """The objects of a scene, in the order of robosuite's own lists."""
    if scene == "Lift":
        return (env.cube,)
    if scene == "Stack":
        return env.cubeA, env.cubeB
    if scene == "PickPlace":
        return tuple(env.objects)
    if scene == "NutAssembly":
        return tuple(env.nuts)
    return (env.door,) if scene == "Door" else ()
