"""Which instance every geom belongs to, by the tree of bodies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jaxtyping import Int32


def instances(
    model: Any, bodies: Mapping[str, int], robot: tuple[str, ...]
) -> tuple[Int32[np.ndarray, " geoms"], dict[int, str]]:
    """The instance of every geom, and the name of every instance.

    Args:
        model: a `mujoco.MjModel`.
        bodies: root body of each instance, in the order of their ids, from 1.
        robot: beginnings of the names of the robot's bodies; the robot is the last instance.
    """
    names = (*bodies, "robot")
    ids = {body: i for i, body in enumerate(bodies.values(), start=1)}
    for body in range(1, model.nbody):
        if model.body(body).name.startswith(robot):
            ids.setdefault(body, len(names))
        ids.setdefault(body, ids.get(int(model.body_parentid[body]), 0))
    instance = np.array([ids.get(int(body), 0) for body in model.geom_bodyid], np.int32)
    return instance, dict(enumerate(names, start=1))
