"""The way to the gripper: the trajectory as it is, or an action goal when the position changes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from trajectory_msgs.msg import JointTrajectory

from leanvla_ros.convert import to_message
from leanvla_ros.qos import COMMAND

if TYPE_CHECKING:
    from rclpy.node import Node

    from policy.contract import Gripper
    from policy.robot.commands import Trajectory

_CHANGE = 1e-3  # of the stroke; smaller changes are no new goal


class GripperOutput(Protocol):
    """Takes gripper commands that the guard let pass."""

    def send(self, command: Trajectory) -> None:
        """Pass one on."""
        ...


def make_gripper_output(node: Node, gripper: Gripper) -> GripperOutput:
    """The output that the contract asks for."""
    return _Action(node, gripper) if gripper.via == "action" else _Topic(node, gripper)


class _Topic:
    def __init__(self, node: Node, gripper: Gripper) -> None:
        self._publisher = node.create_publisher(JointTrajectory, gripper.guarded_topic, COMMAND)

    def send(self, command: Trajectory) -> None:
        self._publisher.publish(to_message(command))


class _Action:
    """Goals of control_msgs/GripperCommand, which only a robot's own ROS brings along."""

    def __init__(self, node: Node, gripper: Gripper) -> None:
        from control_msgs.action import GripperCommand
        from rclpy.action import ActionClient

        self._goal_type: Any = GripperCommand.Goal
        self._client = ActionClient(node, GripperCommand, gripper.guarded_topic)
        self._gripper = gripper
        self._least = _CHANGE * abs(gripper.open_position - gripper.closed_position)
        self._last: float | None = None

    def send(self, command: Trajectory) -> None:
        position = float(command.positions[-1, 0])
        if self._last is not None and abs(position - self._last) < self._least:
            return
        if not self._client.server_is_ready():
            return  # asked again with the next command
        goal = self._goal_type()
        goal.command.position, goal.command.max_effort = position, self._gripper.max_effort
        self._client.send_goal_async(goal)
        self._last = position
