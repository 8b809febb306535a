"""Between the core's values and ROS messages. Pixels go through buffers, never through lists."""

from __future__ import annotations

import array
from typing import TYPE_CHECKING

import numpy as np
from builtin_interfaces.msg import Duration, Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from geometry_msgs.msg import PoseStamped, TwistStamped, Vector3
from geometry_msgs.msg import Twist as TwistMessage
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import Header
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from policy.robot.commands import Trajectory, Twist
from policy.robot.messages import stamp_s

if TYPE_CHECKING:
    from collections.abc import Iterable

    from jaxtyping import Float, UInt8

    from policy.robot.commands import Command
    from policy.robot.health import Check

_NANO = 10**9


def to_time(seconds: float) -> Time:
    """A stamp."""
    nanoseconds = round(seconds * _NANO)
    return Time(sec=nanoseconds // _NANO, nanosec=nanoseconds % _NANO)


def to_message(command: Command) -> TwistStamped | JointTrajectory:
    """A command on the wire."""
    return _twist(command) if isinstance(command, Twist) else _trajectory(command)


def from_message(message: TwistStamped | JointTrajectory) -> Command:
    """A command off the wire; arrays of unequal lengths stay unequal, for the guard to see."""
    if isinstance(message, TwistStamped):
        v = message.twist
        parts = (v.linear.x, v.linear.y, v.linear.z, v.angular.x, v.angular.y, v.angular.z)
        return Twist(stamp_s(message), message.header.frame_id, np.array(parts, np.float64))
    points = message.points
    width = len(message.joint_names)
    times = [p.time_from_start.sec + p.time_from_start.nanosec / _NANO for p in points]
    moving = any(len(p.velocities) for p in points)
    return Trajectory(
        stamp_s(message),
        tuple(message.joint_names),
        np.array(times, np.float64),
        _matrix([p.positions for p in points], width),
        _matrix([p.velocities for p in points], width) if moving else None,
    )


def _matrix(rows: list, width: int) -> np.ndarray:
    if any(len(row) != width for row in rows):
        return np.zeros((len(rows), 0))  # a shape that no check lets pass
    return np.array(rows, np.float64).reshape(len(rows), width)


def _twist(command: Twist) -> TwistStamped:
    x, y, z, rx, ry, rz = command.values.tolist()
    return TwistStamped(
        header=Header(stamp=to_time(command.stamp_s), frame_id=command.frame_id),
        twist=TwistMessage(linear=Vector3(x=x, y=y, z=z), angular=Vector3(x=rx, y=ry, z=rz)),
    )


def _trajectory(command: Trajectory) -> JointTrajectory:
    out = JointTrajectory(joint_names=list(command.joints))
    out.header.stamp = to_time(command.stamp_s)
    for index, seconds in enumerate(command.times_s):
        nanoseconds = round(float(seconds) * _NANO)
        point = JointTrajectoryPoint(positions=command.positions[index].tolist())
        point.time_from_start = Duration(sec=nanoseconds // _NANO, nanosec=nanoseconds % _NANO)
        if command.velocities is not None:
            point.velocities = command.velocities[index].tolist()
        out.points.append(point)
    return out


def to_image(pixels: UInt8[np.ndarray, "h w 3"], stamp: Time, frame_id: str) -> Image:
    """An RGB picture."""
    height, width = pixels.shape[:2]
    out = Image(height=height, width=width, encoding="rgb8", step=width * 3)
    out.header.stamp, out.header.frame_id = stamp, frame_id
    out.data = array.array("B", np.ascontiguousarray(pixels).tobytes())
    return out


def to_joint_state(positions: dict[str, float], stamp: Time) -> JointState:
    """Joint positions by name."""
    out = JointState(name=list(positions), position=list(positions.values()))
    out.header.stamp = stamp
    return out


def to_pose(
    position: Float[np.ndarray, 3], quat: Float[np.ndarray, 4], stamp: Time, frame_id: str
) -> PoseStamped:
    """A pose; the quaternion is x, y, z, w."""
    out = PoseStamped()
    out.header.stamp, out.header.frame_id = stamp, frame_id
    point, turn = out.pose.position, out.pose.orientation
    point.x, point.y, point.z = (float(v) for v in position)
    turn.x, turn.y, turn.z, turn.w = (float(v) for v in quat)
    return out


def to_diagnostics(checks: Iterable[Check], node: str, stamp: Time) -> DiagnosticArray:
    """Diagnostics as REP 107 has them."""
    out = DiagnosticArray()
    out.header.stamp = stamp
    for check in checks:
        status = DiagnosticStatus(
            level=bytes([check.level]),
            name=f"{node}: {check.name}",
            message=check.message,
            hardware_id=node,
            values=[KeyValue(key=key, value=text) for key, text in check.values.items()],
        )
        out.status.append(status)
    return out
