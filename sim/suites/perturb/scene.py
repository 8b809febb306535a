"""Perturbations of what is seen: cameras and lights of a compiled model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import mujoco
import numpy as np

if TYPE_CHECKING:
    from jaxtyping import Float64

    from sim.suites.base import Scene

_CAMERA = ("cam_pos", "cam_quat")
_LIGHT = ("light_diffuse", "light_ambient", "light_dir")


class Original:
    """How a model looked before anything was changed.

    Args:
        scene: the model.
    """

    def __init__(self, scene: Scene) -> None:
        self.model = scene.model
        self._arrays = {name: getattr(self.model, name).copy() for name in (*_CAMERA, *_LIGHT)}
        head = self.model.vis.headlight
        self._head = head.diffuse.copy(), head.ambient.copy()

    def restore(self) -> None:
        """Make it look so again."""
        for name, value in self._arrays.items():
            getattr(self.model, name)[:] = value
        head = self.model.vis.headlight
        head.diffuse[:], head.ambient[:] = self._head


def move_cameras(scene: Scene, size: float, rng: np.random.Generator) -> list[float]:
    """Move every camera that is fixed to the world; returns metres and radians, six a camera."""
    model, values = scene.model, []
    for camera in np.flatnonzero(model.cam_bodyid == 0):
        shift, turn = rng.uniform(-size, size, (2, 3))
        model.cam_pos[camera] += shift
        model.cam_quat[camera] = _turned(model.cam_quat[camera], turn)
        values += [*shift, *turn]
    mujoco.mj_camlight(model, scene.data)
    return [float(value) for value in values]


def change_lights(scene: Scene, size: float, rng: np.random.Generator) -> list[float]:
    """Make it brighter or darker, and light come from elsewhere; returns factor and shifts."""
    model, factor = scene.model, rng.uniform(1 - size, 1 + size)
    head = model.vis.headlight
    for light in (head.diffuse, head.ambient, model.light_diffuse, model.light_ambient):
        light[:] = np.clip(light * factor, 0.0, 1.0)
    shifts = rng.uniform(-size, size, model.light_dir.shape)
    directions = model.light_dir + shifts
    lengths = np.linalg.norm(directions, axis=1, keepdims=True)
    model.light_dir[:] = directions / np.maximum(lengths, 1e-6)
    mujoco.mj_camlight(model, scene.data)
    return [float(factor), *map(float, shifts.ravel())]


def _turned(quat: Float64[np.ndarray, " 4"], turn: np.ndarray) -> Any:
    """A camera's orientation, turned about its own axes by a rotation vector."""
    step, result = np.zeros(4), np.zeros(4)
    angle = float(np.linalg.norm(turn))
    mujoco.mju_axisAngle2Quat(step, turn / max(angle, 1e-9), angle)
    mujoco.mju_mulQuat(result, np.asarray(quat, np.float64), step)
    return result
