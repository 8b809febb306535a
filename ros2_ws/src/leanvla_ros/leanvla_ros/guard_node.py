"""The guard's node: the only one that may speak to the robot.

It runs in a process of its own and needs nothing of the policy's: when that is killed, hangs or
talks nonsense, the robot gets the safe action that its contract declares.
"""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING, Any

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.node import Node
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

from leanvla_ros.convert import from_message, to_diagnostics, to_message, to_time
from leanvla_ros.gripper import make_gripper_output
from leanvla_ros.inputs import message_type, subscribe_feedback
from leanvla_ros.parameters import GUARD_NODE, contract_path, declare, value
from leanvla_ros.process import now, run, steady_timer, wait_for_clock
from leanvla_ros.qos import COMMAND, LIVE, Commanders
from policy.contract_file import read_contract
from policy.robot.guard import Guard, Measured
from policy.robot.health import Check, Ledger, Level
from policy.robot.senses import Senses
from policy.types import ObservationSpec

if TYPE_CHECKING:
    from collections.abc import Iterator

    from policy.robot.commands import Command
    from policy.robot.guard import GuardState

_LEVELS = {"idle": Level.OK, "pass": Level.OK, "safe": Level.WARN, "latched": Level.ERROR}


class GuardNode(Node):
    """See the module."""

    def __init__(self) -> None:
        super().__init__("guard_node")
        declare(self, GUARD_NODE)
        self.exit_code: int | None = None
        wait_for_clock(self, value(self, "clock_timeout_s"))
        self.contract = read_contract(contract_path(value(self, "contract")))
        self.ledger = Ledger()
        self.senses = Senses(self.contract, ObservationSpec(()), self.ledger)
        self._guard = Guard(self.contract)
        self._state: GuardState = self._guard.initial()
        self._lock = threading.RLock()
        self._last_ros_s = -1.0
        self._connect()

    def _connect(self) -> None:
        command, gripper = self.contract.command, self.contract.gripper
        kind = message_type(command.kind)
        self._out = self.create_publisher(kind, command.guarded_topic, LIVE)
        self.create_subscription(kind, command.topic, self._on_command, COMMAND)
        self._before = Commanders(self, kind, command.topic)
        self._behind = Commanders(self, kind, command.guarded_topic)
        self._grip = None
        if gripper is not None:
            self._grip = make_gripper_output(self, gripper)
            self.create_subscription(JointTrajectory, gripper.topic, self._on_gripper, COMMAND)
            self._before_grip = Commanders(self, JointTrajectory, gripper.topic)
        self._inputs = list(subscribe_feedback(self, self, self._lock))
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self._status = self.create_publisher(DiagnosticArray, "~/status", 10)
        self.create_service(Trigger, "~/reset", self._on_reset)
        self.create_service(Trigger, "~/stop", self._on_stop)
        self.create_timer(self.contract.period_s, self._tick)
        steady_timer(self, 1.0, self._report)

    def _commanders(self) -> int:
        """How many command, on either side of the guard; its own side counts the guard itself."""
        return max(self._before.count(), self._behind.count())

    def _measured(self, now_s: float) -> Measured:
        return Measured(self.senses.joints(now_s), self.senses.hand(now_s))

    def _now_s(self) -> float:
        """The clock; one that jumped back voids what was measured and told before."""
        now_s = now(self).ros_s
        if now_s < self._last_ros_s - 1e-9:
            self.senses.clear()
            self._state = self._guard.forget_time(self._state)
            self.ledger.count("clock_jumps")
        self._last_ros_s = now_s
        return now_s

    def _on_command(self, message: Any) -> None:
        now_s, publishers = self._now_s(), self._commanders()
        self._after(
            *self._guard.judge(
                self._state, from_message(message), self._measured(now_s), now_s, publishers
            )
        )

    def _on_gripper(self, message: JointTrajectory) -> None:
        gripper, now_s = self.contract.gripper, self._now_s()
        if gripper is None or self._grip is None:
            return
        command = from_message(message)
        publishers = self._before_grip.count()
        fault = self._guard.gripper_fault(self._state, command, now_s, publishers)  # type: ignore[arg-type]
        if fault:
            self.ledger.drop("gripper", fault)
        else:
            self._grip.send(command)  # type: ignore[arg-type]

    def _tick(self) -> None:
        now_s = self._now_s()
        self._after(*self._guard.tick(self._state, self._measured(now_s), now_s))

    def _after(self, state: GuardState, command: Command | None) -> None:
        before, self._state = self._state, state
        if command is not None:
            self._out.publish(to_message(command))
        if state.mode != before.mode:
            change = f"{before.mode} -> {state.mode} {state.reason}".rstrip()
            # Two places on purpose: rclpy ties a severity to the line that logs.
            if state.mode == "pass":
                self.get_logger().info(change)
            else:
                self.get_logger().error(change)
            self._status.publish(self._diagnose())

    def _on_reset(self, request: Any, response: Any) -> Any:
        self._after(self._guard.reset(self._state), None)
        response.success, response.message = True, "released"
        return response

    def _on_stop(self, request: Any, response: Any) -> Any:
        now_s = self._now_s()
        stopped = self._guard.stop(self._state, "stopped by service", self._measured(now_s))
        self._after(stopped, self._guard.safe_action(stopped, now_s))
        response.success, response.message = True, "stopped, until reset"
        return response

    def _report(self) -> None:
        self._diagnostics.publish(self._diagnose())

    def _diagnose(self) -> DiagnosticArray:
        return to_diagnostics(self._checks(), self.get_name(), to_time(now(self).ros_s))

    def _checks(self) -> Iterator[Check]:
        state = self._state
        values = {
            "mode": state.mode,
            "faults_in_a_row": str(state.faults),
            "passed": str(state.passed),
            "refused": str(state.refused),
            **{f"refused_{cause}": str(count) for cause, count in sorted(state.causes.items())},
            **{name: str(count) for name, count in sorted(self.ledger.counters.items())},
        }
        yield Check("guard", _LEVELS[state.mode], state.reason or state.mode, values)

    def leave(self) -> None:
        """The process ends: safe action once, if the robot was ever told to move."""
        if self._state.mode != "idle":
            now_s = self._now_s()
            stopped = self._guard.stop(self._state, "guard ends", self._measured(now_s))
            self._out.publish(to_message(self._guard.safe_action(stopped, now_s)))


def main() -> None:
    """Entry point of the console script."""
    sys.exit(run(GuardNode))


if __name__ == "__main__":
    main()
