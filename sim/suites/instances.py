"""Which instance every geom belongs to, by the tree of bodies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from jaxtyping import Int32, Int64

GRIPPER, ARM = "gripper", "robot"
"""Instances of every suite: the hand, and the rest of the robot."""


def instances(
    model: Any, bodies: Mapping[str, int | Sequence[int]], robot: tuple[str, ...]
) -> tuple[Int32[np.ndarray, " geoms"], dict[int, str]]:
    """The instance of every geom, and the name of every instance.

    Args:
        model: a `mujoco.MjModel`.
        bodies: root body of each instance, or several, in the order of their ids, from 1; one
            inside another is an instance of its own.
        robot: beginnings of the names of the robot's bodies; the robot is the last instance.
    """
    names = (*bodies, ARM)
    ids: dict[int, int] = {}
    for i, roots in enumerate(bodies.values(), start=1):
        ids |= dict.fromkeys([roots] if isinstance(roots, int) else roots, i)
    for body in range(1, model.nbody):
        if model.body(body).name.startswith(robot):
            ids.setdefault(body, len(names))
        ids.setdefault(body, ids.get(int(model.body_parentid[body]), 0))
    instance = np.array([ids.get(int(body), 0) for body in model.geom_bodyid], np.int32)
    return instance, dict(enumerate(names, start=1))


def geoms_of(
    told: tuple[Int32[np.ndarray, " geoms"], dict[int, str]], *wanted: str
) -> Int64[np.ndarray, " k"]:
    """The geoms of some instances, of what `instances` told; a name that is unknown has none."""
    instance, names = told
    numbers = [number for number, name in names.items() if name in wanted]
    return np.flatnonzero(np.isin(instance, numbers))
