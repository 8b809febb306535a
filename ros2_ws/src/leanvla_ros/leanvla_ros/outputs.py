"""What the policy's node publishes, and how long the way there took."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import msgspec
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.node import Node
from sensor_msgs.msg import Image
from std_msgs.msg import String
from trajectory_msgs.msg import JointTrajectory

from leanvla_ros.convert import to_diagnostics, to_image, to_message, to_time
from leanvla_ros.inputs import message_type
from leanvla_ros.overlay import draw_kept
from leanvla_ros.qos import LATCHED, LIVE, RUN
from policy.robot.health import Latest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from policy.contract import Contract
    from policy.robot.health import Check
    from policy.robot.mover import Output
    from policy.types import Inference, Observation, Policy


class Outputs:
    """Publishers of one configured node.

    Plain publishers, not managed ones: the safe action must leave while the gate is closing.

    Args:
        node: who publishes.
        contract: names the topics.
        tap: shown commands and status, after they left.
    """

    def __init__(self, node: Node, contract: Contract, tap: Callable[[str, Any], None]) -> None:
        self._node, self._tap = node, tap
        command, gripper = contract.command, contract.gripper
        self._topics = (command.topic, gripper.topic if gripper else "")
        self._command = self._make(message_type(command.kind), command.topic, LIVE)
        self._gripper = self._make(JointTrajectory, gripper.topic, LIVE) if gripper else None
        self._status = self._make(DiagnosticArray, "~/status", 10)
        self._diagnostics = self._make(DiagnosticArray, "/diagnostics", 10)
        self._specs = self._make(String, "~/specs", LATCHED)
        self._run = self._make(String, "~/run", RUN)
        self._debug = self._make(Image, "~/debug/image", 1)
        self.published_s = self.published_cpu_s = 0.0
        self.times = {"overhead": Latest(), "overhead_cpu": Latest()}

    def _make(self, kind: type, topic: str, qos: Any) -> Any:
        return Node.create_publisher(self._node, kind, topic, qos)

    def close(self) -> None:
        """Take all publishers back."""
        publishers = (self._command, self._gripper, self._status, self._diagnostics)
        for publisher in (*publishers, self._specs, self._run, self._debug):
            if publisher is not None:
                self._node.destroy_publisher(publisher)

    def send(self, output: Output) -> None:
        """Publish what one tick decided."""
        if output.command is not None:
            message = to_message(output.command)
            self._command.publish(message)
            # Of the thread that publishes, which is the one whose time is asked for.
            self.published_s, self.published_cpu_s = time.perf_counter(), time.thread_time()
            self._tap(self._topics[0], message)
        if output.gripper is not None and self._gripper is not None:
            message = to_message(output.gripper)
            self._gripper.publish(message)
            self._tap(self._topics[1], message)

    def note_overhead(self, wall_s: float, cpu_s: float) -> None:
        """One answer's way, from complete messages to its command, without the policy's part."""
        self.times["overhead"].add(wall_s * 1e3)
        self.times["overhead_cpu"].add(cpu_s * 1e3)

    def tell_status(self, checks: Iterable[Check], stamp_s: float) -> None:
        """Diagnostics under the stamp of the picture that a command answers."""
        message = to_diagnostics(checks, self._node.get_name(), to_time(stamp_s))
        self._status.publish(message)
        self._tap(self._status.topic_name, message)

    def tell_diagnostics(self, checks: Iterable[Check], now_s: float) -> None:
        """Diagnostics for everybody."""
        self._diagnostics.publish(to_diagnostics(checks, self._node.get_name(), to_time(now_s)))

    def tell_specs(self, contract: Contract, policy: Policy) -> None:
        """What the policy reads and says."""
        specs = {"observation": policy.observation_spec, "action": policy.action_spec}
        document = {"robot": contract.robot, **msgspec.to_builtins(specs)}
        self._specs.publish(String(data=json.dumps(document)))

    def tell_run(self, said: str) -> None:
        """How the instruction goes, and why it ended."""
        self._run.publish(String(data=said))

    def show(self, observation: Observation, inference: Inference) -> None:
        """Kept tokens, drawn, when somebody looks."""
        if not self._debug.get_subscription_count():
            return
        per_view = inference.timing.visual_tokens // len(observation.images)
        picture = draw_kept(observation.images, inference.chunk.kept, per_view)
        self._debug.publish(to_image(picture, to_time(observation.stamp_s), "leanvla_debug"))
