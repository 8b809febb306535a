"""A MuJoCo scene as one vector, to be returned to, bit for bit.

After a control step, where things are seen and judged to be is one physics step behind the joints.
Poses are saved beside the state, so that the first look after a return is the look of then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import mujoco
import numpy as np

if TYPE_CHECKING:
    from jaxtyping import Float64

    from sim.suites.base import Scene

_STATE = mujoco.mjtState.mjSTATE_INTEGRATION
_POSES = (
    *("xpos", "xquat", "xmat", "xipos", "ximat", "geom_xpos", "geom_xmat"),
    *("site_xpos", "site_xmat", "cam_xpos", "cam_xmat", "light_xpos", "light_xdir"),
)


def save_scene(scene: Scene) -> Float64[np.ndarray, " state"]:
    """Everything that physics and pictures depend on, but what lies in the model."""
    model, data = scene
    state = np.zeros(mujoco.mj_stateSize(model, _STATE))
    mujoco.mj_getState(model, data, state, _STATE)
    return np.concatenate([state, *(getattr(data, name).ravel() for name in _POSES)])


def load_scene(scene: Scene, saved: Float64[np.ndarray, " state"]) -> None:
    """Return to what `save_scene` gave for the same model."""
    model, data = scene
    size = mujoco.mj_stateSize(model, _STATE)
    mujoco.mj_setState(model, data, saved[:size], _STATE)
    mujoco.mj_step1(model, data)  # contacts, and all that only the joints decide
    for name in _POSES:
        pose = getattr(data, name)
        pose[:] = saved[size : size + pose.size].reshape(pose.shape)
        size += pose.size
