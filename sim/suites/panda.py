"""What a Panda feels, as the suites on our own robosuite tell it, and the units of its actions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import mujoco
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaxtyping import Float32, Int64


def proprioception(
    data: Any, eef: int, fingers: Int64[np.ndarray, " 2"] | Sequence[int]
) -> Float32[np.ndarray, " 8"]:
    """Hand position [m], hand orientation as axis times angle [rad], finger positions [m].

    Args:
        data: a `mujoco.MjData`.
        eef: the site between the finger tips.
        fingers: places of the two finger joints in `qpos`; a tool without fingers has none.
    """
    quat = np.zeros(4)
    mujoco.mju_mat2Quat(quat, data.site_xmat[eef])
    # The hand points down, half a turn from zero: keep the axis's sign, so nothing ever jumps.
    quat = quat if quat[1] >= 0 else -quat
    sine = np.linalg.norm(quat[1:])
    vector = quat[1:] / sine * 2 * np.arctan2(sine, quat[0])
    positions = data.qpos[fingers] if len(fingers) else np.zeros(2)
    return np.concatenate([data.site_xpos[eef], vector, positions]).astype("f4")
