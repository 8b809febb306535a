"""Subscriptions by contract: cameras, state, and the robot's own measurements."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from geometry_msgs.msg import PoseStamped, TwistStamped
from sensor_msgs.msg import CompressedImage, Image, JointState
from trajectory_msgs.msg import JointTrajectory

from leanvla_ros.convert import from_message
from leanvla_ros.process import now
from leanvla_ros.qos import TOLD, mismatch_events, profile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from threading import RLock

    from rclpy.node import Node

    from policy.contract import Qos
    from policy.robot.session import Session

_TYPES = {
    "sensor_msgs/msg/Image": Image,
    "sensor_msgs/msg/CompressedImage": CompressedImage,
    "sensor_msgs/msg/JointState": JointState,
    "geometry_msgs/msg/PoseStamped": PoseStamped,
    "twist": TwistStamped,
    "trajectory": JointTrajectory,
}


def message_type(name: str) -> type:
    """The class of a message type's name, or of a kind of command."""
    return _TYPES[name]


def listen(node: Node, kind: str, topic: str, qos: Qos, callback: Callable[[Any], None]) -> Any:
    """One subscription that says so when a publisher's quality of service does not fit."""
    events = mismatch_events(topic, qos, node.get_logger().error)
    return node.create_subscription(
        message_type(kind), topic, callback, profile(qos), event_callbacks=events
    )


def subscribe(
    node: Node,
    session: Session,
    lock: RLock,
    nudge: Callable[[], None],
    tap: Callable[[str, Any], None],
) -> Iterator[Any]:
    """Everything that a session reads.

    Args:
        node: who listens.
        session: who reads.
        lock: held while it does.
        nudge: called when there may be something to ask.
        tap: shown every message with its topic, in the order in which the session sees them.
    """
    contract, senses = session.contract, session.senses

    def reader(topic: str, name: str, take: Callable[..., None]) -> Callable[[Any], None]:
        def callback(message: Any) -> None:
            with lock:
                before = senses.pairing.slot
                take(name, message, now(node))
                complete = senses.pairing.slot is not before
                tap(topic, message)
            if complete:
                nudge()

        return callback

    for camera in contract.cameras:
        read = reader(camera.topic, camera.view, session.image)
        yield listen(node, camera.type, camera.topic, camera.qos, read)
    for source in contract.state:
        read = reader(source.topic, source.topic, session.state)
        yield listen(node, source.type, source.topic, source.qos, read)
    yield from subscribe_feedback(node, session, lock)
    yield _subscribe_told(node, session, lock, tap)


def _subscribe_told(
    node: Node, session: Session, lock: RLock, tap: Callable[[str, Any], None]
) -> Any:
    """What the robot is told, by the guard."""
    command = session.contract.command

    def told(message: Any) -> None:
        with lock:
            session.heard(from_message(message), now(node))
            tap(command.guarded_topic, message)

    return node.create_subscription(message_type(command.kind), command.guarded_topic, told, TOLD)


def subscribe_feedback(node: Node, session: Any, lock: RLock) -> Iterator[Any]:
    """The robot's own measurements, for whoever has `senses`."""
    feedback, senses = session.contract.feedback, session.senses

    def joints(message: Any) -> None:
        with lock:
            senses.joint_feedback(message)

    def pose(message: Any) -> None:
        with lock:
            senses.pose_feedback(message)

    joint_states = feedback.joint_states
    yield listen(node, "sensor_msgs/msg/JointState", joint_states, feedback.qos, joints)
    if feedback.pose:
        yield listen(node, "geometry_msgs/msg/PoseStamped", feedback.pose, feedback.qos, pose)
