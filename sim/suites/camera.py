"""Where points of the world appear in a view, for suites on MuJoCo."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from jaxtyping import Bool, Float32


def project(
    model: Any, data: Any, view: str, points: Float32[np.ndarray, "k 3"], *, mirrored: bool = False
) -> tuple[Float32[np.ndarray, "k 2"], Bool[np.ndarray, " k"]]:
    """Where world points appear in a view.

    Args:
        model: a `mujoco.MjModel`.
        data: its `mujoco.MjData`, with current camera poses.
        view: camera name.
        points: world positions, m.
        mirrored: whether the suite swaps left and right in its frames.

    Returns:
        (u, v) per point, from (0, 0) at the top left to (1, 1) at the bottom right, and whether
        the point lies in front of the camera and inside the frame (it may still be occluded).
    """
    camera = data.camera(view)
    local = (np.asarray(points, np.float64) - camera.xpos) @ camera.xmat.reshape(3, 3)
    depth = np.maximum(-local[:, 2], 1e-6)
    scale = 0.5 / np.tan(np.radians(model.camera(view).fovy[0]) / 2)
    signs = (-1.0, -1.0) if mirrored else (1.0, -1.0)
    uv = 0.5 + scale * local[:, :2] * signs / depth[:, None]
    inside = (local[:, 2] < 0) & (uv >= 0).all(1) & (uv <= 1).all(1)
    return uv.astype(np.float32), inside
