"""What the judge and the expert read: one snapshot of the simulator, in world coordinates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sim.suites.tabletop.layout import COLOURS, RECEPTACLES

if TYPE_CHECKING:
    from jaxtyping import Float64, Int64

    from sim.suites.tabletop.layout import Layout


@dataclass(frozen=True)
class Snapshot:
    """The state of an episode at one control step.

    Attributes:
        eef: position of the point between the fingertips, m.
        eef_rot: rotation matrix of the hand.
        width: opening between the finger pads, m (0 to 0.08).
        position: centre of each present movable, m.
        speed: linear speed of each present movable, m/s.
        start: centre of each present movable at reset, m.
        touched: number of fingers (0 to 2) that touch each present movable.
        receptacle: base position of each receptacle, m.
    """

    eef: Float64[np.ndarray, " 3"]
    eef_rot: Float64[np.ndarray, "3 3"]
    width: float
    position: dict[str, Float64[np.ndarray, " 3"]]
    speed: dict[str, float]
    start: dict[str, Float64[np.ndarray, " 3"]]
    touched: dict[str, int]
    receptacle: dict[str, Float64[np.ndarray, " 3"]]


class Probe:
    """Reads snapshots and knows which geom belongs to what.

    Args:
        model: the compiled scene.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self.body = {name: model.body(name).id for name in (*COLOURS, *RECEPTACLES)}
        self.eef = model.site("gripper0_right_grip_site").id
        joints = [model.joint(f"gripper0_right_finger_joint{i}") for i in (1, 2)]
        self.fingers = np.array([j.qposadr[0] for j in joints])
        self._velocity = {c: model.joint(f"{c}_joint").dofadr[0] for c in COLOURS}
        self._owner = np.array([-1] * model.ngeom)
        for index, colour in enumerate(COLOURS):
            self._owner[model.geom_bodyid == self.body[colour]] = index
        self._finger = np.zeros(model.ngeom, int)
        for finger in (1, 2):
            for part in ("collision", "pad_collision"):
                self._finger[model.geom(f"gripper0_right_finger{finger}_{part}").id] = finger

    def read(self, data: Any, layout: Layout, start: dict[str, np.ndarray]) -> Snapshot:
        """A snapshot of `data`, whose derived quantities must be current."""
        present = layout.movables
        bodies = {c: self.body[c] for c in present}
        touching = self._touching(data)
        speed = {c: data.qvel[self._velocity[c] : self._velocity[c] + 3] for c in present}
        return Snapshot(
            eef=data.site_xpos[self.eef].copy(),
            eef_rot=data.site_xmat[self.eef].reshape(3, 3).copy(),
            width=float(np.abs(data.qpos[self.fingers]).sum()),
            position={c: data.xpos[b].copy() for c, b in bodies.items()},
            speed={c: float(np.linalg.norm(v)) for c, v in speed.items()},
            start=start,
            touched={c: len(touching[COLOURS.index(c)]) for c in present},
            receptacle={r: data.xpos[self.body[r]].copy() for r in RECEPTACLES},
        )

    def _touching(self, data: Any) -> list[set[int]]:
        """Fingers in contact with each colour."""
        fingers: list[set[int]] = [set() for _ in COLOURS]
        for one, other in data.contact.geom:
            for geom, thing in ((one, other), (other, one)):
                if self._finger[geom] and self._owner[thing] >= 0:
                    fingers[self._owner[thing]].add(int(self._finger[geom]))
        return fingers

    def instances(self, layout: Layout) -> tuple[Int64[np.ndarray, " geoms"], dict[int, str]]:
        """Instance id of every geom (0 is background) and the name of each instance."""
        names = [f"{c}_{m.shape}" for c, m in layout.movables.items()]
        names += [*RECEPTACLES, "table", "gripper", "robot"]
        ids = {name: i for i, name in enumerate(names, start=1)}
        owner = [self._instance_of(body, layout) for body in self._model.geom_bodyid]
        return np.array([ids.get(name, 0) for name in owner]), {i: n for n, i in ids.items()}

    def _instance_of(self, body: int, layout: Layout) -> str:
        name = self._model.body(body).name
        if name in layout.movables:
            return f"{name}_{layout.movables[name].shape}"
        if name.startswith("gripper0"):
            return "gripper"
        return "robot" if name.startswith(("robot0", "fixed_mount", "mount")) else name
