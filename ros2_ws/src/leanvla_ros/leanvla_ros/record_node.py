"""A running robot's topics into one bag, by its contract, beside whoever drives it.

It writes what the policy's node writes, through the same recorder, but for decisions, which only
that node knows: a replay pairs such a bag as a node pairs messages.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.node import Node
from rclpy.parameter import Parameter
from std_msgs.msg import String
from trajectory_msgs.msg import JointTrajectory

from leanvla_ros.inputs import message_type
from leanvla_ros.parameters import contract_path
from leanvla_ros.process import GRACE_S, spin, start, steady_timer
from leanvla_ros.qos import LATCHED, TOLD, profile
from leanvla_ros.tape import Tape
from policy.contract_file import read_contract

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rclpy.qos import QoSProfile

    from policy.contract import Contract
    from policy.replay.redact import Redaction


@dataclass(frozen=True)
class Options:
    """What to record.

    Attributes:
        contract: a contract's name, or the path of a file.
        out: folder in which the bag is made.
        redact: what is done to pictures.
        seconds: end after so long; None waits for a signal.
        use_sim_time: take time from /clock.
        policy_node, guard_node: names of the nodes whose status is recorded.
    """

    contract: str
    out: str
    redact: Redaction = "none"
    seconds: float | None = None
    use_sim_time: bool = False
    policy_node: str = "/policy_node"
    guard_node: str = "/guard_node"


@dataclass(frozen=True)
class Recorded:
    """What a recording came to.

    Attributes:
        bag: its folder.
        state: of the recorder: `closed`, or `degraded` when the disk refused.
        message: one sentence about it.
        heard: messages by topic; a topic that was silent stands here with zero.
    """

    bag: Path
    state: str
    message: str
    heard: dict[str, int] = field(default_factory=dict)


class RecordNode(Node):
    """See the module."""

    def __init__(self, options: Options) -> None:
        clock = Parameter("use_sim_time", value=options.use_sim_time)
        super().__init__("leanvla_recorder", parameter_overrides=[clock])
        self.exit_code: int | None = None
        contract = read_contract(contract_path(options.contract))
        self._tape = Tape(self.get_clock())
        facts = {"recorder": "leanvla record"}
        bag = self._tape.start(options.out, contract, options.redact, facts)
        if bag is None:
            raise ValueError("out is empty: name a folder")
        self.bag, self._state, self._said = bag, "recording", ""
        self.heard = Counter[str]()
        for topic, kind, qos in topics(contract, options.policy_node, options.guard_node):
            self.heard[topic] = 0
            self.create_subscription(kind, topic, self._writer(topic), qos)
        words = f"{options.policy_node}/instruction"
        self.heard[words] = 0
        self.create_subscription(String, words, self._on_words(words), LATCHED)
        steady_timer(self, 1.0, self._watch)
        ends_s = float("inf") if options.seconds is None else options.seconds
        self._ends_s = time.monotonic() + ends_s
        steady_timer(self, 0.05, self._count_down)
        self.get_logger().info(f"recording {len(self.heard)} topics into {bag}")

    def _writer(self, topic: str) -> Any:
        def write(message: Any) -> None:
            self.heard[topic] += 1
            self._tape.message(topic, message)

        return write

    def _on_words(self, topic: str) -> Any:
        def hear(message: String) -> None:
            self.heard[topic] += 1
            self._tape.words(message.data)

        return hear

    def _count_down(self) -> None:
        if time.monotonic() >= self._ends_s:
            self.exit_code = 0

    def _watch(self) -> None:
        """Say once when the disk refuses or stands still; a full disk ends nothing but this."""
        for check in self._tape.checks():
            state = check.message.partition(":")[0]
            if state != self._state and state != "recording":
                self.get_logger().error(check.message)
            self._state = state

    def finish(self) -> Recorded:
        """End the bag."""
        health = self._tape.end("stopped", GRACE_S)
        return Recorded(self.bag, health.state, health.message, dict(self.heard))

    def leave(self) -> None:
        """The robot is somebody else's: nothing to make safe."""


def topics(
    contract: Contract, policy_node: str, guard_node: str
) -> Iterator[tuple[str, type, QoSProfile]]:
    """Topic, type and quality of service of all that is recorded, each topic once."""
    feedback, command, gripper = contract.feedback, contract.command, contract.gripper
    sources = [(s.topic, message_type(s.type), profile(s.qos)) for s in contract.cameras]
    sources += [(s.topic, message_type(s.type), profile(s.qos)) for s in contract.state]
    measured = profile(feedback.qos)
    sources.append((feedback.joint_states, message_type("sensor_msgs/msg/JointState"), measured))
    if feedback.pose:
        sources.append((feedback.pose, message_type("geometry_msgs/msg/PoseStamped"), measured))
    for side in (command.topic, command.guarded_topic):
        sources.append((side, message_type(command.kind), TOLD))
    if gripper is not None:
        sources.append((gripper.topic, JointTrajectory, TOLD))
        if gripper.via == "trajectory":
            sources.append((gripper.guarded_topic, JointTrajectory, TOLD))
    sources += [(f"{node}/status", DiagnosticArray, TOLD) for node in (policy_node, guard_node)]
    yield from {topic: (topic, kind, qos) for topic, kind, qos in reversed(sources)}.values()


def record(options: Options) -> Recorded:
    """Record until a signal comes, or the time is over.

    Raises:
        ContractError: when there is no such contract.
        OSError: when the folder cannot be written.
    """
    heard = start([])
    try:
        node = RecordNode(options)
        spin(node, heard)
        recorded = node.finish()
        node.destroy_node()
    finally:
        rclpy.try_shutdown()
    return recorded
