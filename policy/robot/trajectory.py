"""Joint trajectories that the joint trajectory controller of ros2_control will not reject.

`rejections` states its rules; `encode` builds trajectories that keep them, and proves it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from policy.robot.commands import Trajectory

if TYPE_CHECKING:
    from jaxtyping import Float64


class TrajectoryError(ValueError):
    """A trajectory that the controller would reject."""


def encode(
    stamp_s: float,
    joints: tuple[str, ...],
    positions: Float64[np.ndarray, "k j"],
    period_s: float,
) -> Trajectory:
    """Positions one period apart, the first one period after the stamp, at rest at the end.

    Velocities are central differences, so that the controller's splines pass through the points
    without stopping; the last is zero, so that the robot halts when nothing follows.

    Raises:
        TrajectoryError: when the controller would reject the result.
    """
    positions = np.asarray(positions, np.float64)
    times = period_s * np.arange(1, len(positions) + 1)
    velocities = np.zeros_like(positions)
    if len(positions) > 2:
        velocities[1:-1] = (positions[2:] - positions[:-2]) / (2 * period_s)
    if len(positions) > 1:
        velocities[0] = (positions[1] - positions[0]) / period_s
    trajectory = Trajectory(stamp_s, joints, times, positions, velocities)
    problems = rejections(trajectory, joints, stamp_s)
    if problems:
        raise TrajectoryError("; ".join(problems))
    return trajectory


def rejections(trajectory: Trajectory, controller: tuple[str, ...], now_s: float) -> list[str]:
    """Why the controller of joints `controller` would reject a trajectory at `now_s`."""
    names, times = trajectory.joints, trajectory.times_s
    if not names:
        return ["it names no joint"]
    problems = []
    if set(names) != set(controller) or len(names) != len(controller):
        problems.append(f"it names {', '.join(names)}, the controller has {', '.join(controller)}")
    if not len(times):
        return [*problems, "it has no point"]
    problems += _shapes(trajectory)
    if problems:
        return problems
    if not all(np.isfinite(a).all() for a in (times, trajectory.positions, *_speed(trajectory))):
        return ["a time, position or velocity is not finite"]
    if times[0] <= 0 or (np.diff(times) <= 0).any():
        problems.append("its times do not increase from above zero")
    if trajectory.stamp_s and trajectory.stamp_s + times[-1] < now_s:
        problems.append(f"it ended {now_s - trajectory.stamp_s - times[-1]:.3f} s ago")
    if trajectory.velocities is not None and trajectory.velocities[-1].any():
        problems.append("its last velocity is not zero")
    return problems


def _speed(trajectory: Trajectory) -> list[np.ndarray]:
    return [] if trajectory.velocities is None else [trajectory.velocities]


def _shapes(trajectory: Trajectory) -> list[str]:
    want = (len(trajectory.times_s), len(trajectory.joints))
    parts = {"positions": trajectory.positions, "velocities": trajectory.velocities}
    return [
        f"{name} are {array.shape}, {want} expected"
        for name, array in parts.items()
        if array is not None and array.shape != want
    ]
