"""Orientations as policies read them. Quaternions are x, y, z, w, as in ROS."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from jaxtyping import Float64

_UNIT_TOLERANCE = 0.05


def normalized(quat: Float64[np.ndarray, 4], positive: int = 3) -> Float64[np.ndarray, 4]:
    """The unit quaternion of the same orientation whose component `positive` is not negative.

    Raises:
        ValueError: when it is no orientation at all.
    """
    norm = float(np.linalg.norm(quat))
    if not abs(norm - 1.0) < _UNIT_TOLERANCE:
        raise ValueError(f"orientation has norm {norm:.3g}: a quaternion has 1")
    unit = quat / norm
    return -unit if unit[positive] < 0 else unit


def axis_angle(unit: Float64[np.ndarray, 4]) -> Float64[np.ndarray, 3]:
    """Axis times angle, radians, of a unit quaternion; the sign of the axis is kept."""
    sine = float(np.linalg.norm(unit[:3]))
    if sine < 1e-9:
        return np.zeros(3)
    return unit[:3] / sine * 2.0 * np.arctan2(sine, unit[3])


def roll_pitch_yaw(unit: Float64[np.ndarray, 4]) -> Float64[np.ndarray, 3]:
    """Fixed-axis roll, pitch and yaw, radians (REP 103)."""
    x, y, z, w = unit
    return np.array(
        [
            np.arctan2(2 * (w * x + y * z), 1 - 2 * (x * x + y * y)),
            np.arcsin(np.clip(2 * (w * y - z * x), -1.0, 1.0)),
            np.arctan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z)),
        ]
    )
