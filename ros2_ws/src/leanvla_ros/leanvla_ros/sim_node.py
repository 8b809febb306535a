"""The `tabletop` simulator as a robot: cameras, joints, /clock, and a guarded twist that moves it.

This node stands in for a robot, and is the only one that imports `sim`. Simulated time moves one
control step per tick. In lockstep (the default) it waits for the motion of each instant while the
policy thinks, and steps count while the arm is told to move. Without, a command holds until the
next one, but not longer than two periods, and every step counts.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from geometry_msgs.msg import PoseStamped, TwistStamped
from rclpy.node import Node
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import String
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

from leanvla_ros.convert import from_message, to_image, to_joint_state, to_pose, to_time
from leanvla_ros.lockstep import Lockstep
from leanvla_ros.parameters import SIM_NODE, contract_path, declare, value
from leanvla_ros.process import run, steady_timer
from leanvla_ros.qos import LATCHED
from policy.contract import ContractError
from policy.contract_file import read_contract

if TYPE_CHECKING:
    from jaxtyping import Float32, Float64

    from policy.contract import Contract, Gripper
    from policy.robot.commands import Trajectory
    from policy.types import Observation

START_S = 1.0  # a simulated clock that began at zero would look like no stamp at all
HOLD_PERIODS = 2
PAUSE_STEPS = 4  # between episodes, with the arm at rest
MOST_RESTS = 20  # times an episode's steps; a policy that never moves must not last for ever


class SimNode(Node):
    """See the module."""

    def __init__(self) -> None:
        super().__init__("sim_node")
        declare(self, SIM_NODE)
        from sim.suites import make_suite

        self.exit_code: int | None = None
        self.contract = read_contract(contract_path(value(self, "contract")))
        self._suite = make_suite(value(self, "suite"), view_size=self.contract.cameras[0].height)
        self._most = value(self, "max_steps") or self._suite.spec.max_steps
        self._steps = self._rests = self._ticks = self._pause = 0
        self._lockstep = Lockstep(self.contract.period_s) if value(self, "lockstep") else None
        self._due, self._stepped_s = False, time.monotonic()
        self._seed, self._results = value(self, "seed") - 1, []  # type: ignore[var-annotated]
        self._twist, self._twist_s = np.zeros(6), -1.0
        self._gripper = _checked(self.contract)
        self._grip = self._gripper.open_at
        self._began_s = 0.0
        self._connect()
        self._next_episode()
        steady_timer(self, self.contract.period_s / value(self, "speed"), self._on_period)

    def _connect(self) -> None:
        contract = self.contract
        self._clock_out = self.create_publisher(Clock, "/clock", 10)
        self._cameras = {
            camera.view: (camera, self.create_publisher(Image, camera.topic, 2))
            for camera in contract.cameras
        }
        feedback = contract.feedback
        self._pose = self.create_publisher(PoseStamped, feedback.pose, 10)
        self._joints = self.create_publisher(JointState, feedback.joint_states, 10)
        self._words = self.create_publisher(String, "policy_node/instruction", LATCHED)
        self._result = self.create_publisher(String, "~/result", LATCHED)
        self.create_subscription(TwistStamped, contract.command.guarded_topic, self._on_twist, 2)
        topic = self._gripper.guarded_topic
        self.create_subscription(JointTrajectory, topic, self._on_gripper, 2)
        self.create_service(Trigger, "~/next", self._on_next)

    @property
    def _now_s(self) -> float:
        return START_S + self._ticks * self.contract.period_s

    def _on_twist(self, message: TwistStamped) -> None:
        command = from_message(message)
        twist: Float64[np.ndarray, 6] = command.values  # type: ignore[union-attr]
        if self._lockstep is not None:
            self._lockstep.take(twist, command.stamp_s, self._began_s)
            self._go_on()
        elif command.stamp_s >= self._began_s:
            self._twist, self._twist_s = twist, self._now_s

    def _on_gripper(self, message: JointTrajectory) -> None:
        command: Trajectory = from_message(message)  # type: ignore[assignment]
        if command.stamp_s >= self._began_s:
            self._hold(command)
        if self._lockstep is not None:
            self._lockstep.take_gripper()
            self._go_on()

    def _hold(self, command: Trajectory) -> None:
        gripper = self._gripper
        middle = (gripper.open_position + gripper.closed_position) / 2
        wide = float(command.positions[-1, 0]) > middle
        self._grip = gripper.open_at if wide else gripper.closed_at

    def _on_next(self, request: Any, response: Any) -> Any:
        self._finish("skipped")
        response.success, response.message = True, f"seed {self._seed}"
        return response

    def _on_period(self) -> None:
        self._due = True
        self._go_on()

    def _go_on(self) -> None:
        """Make the step that is due, as soon as it may be made."""
        waited_s = time.monotonic() - self._stepped_s
        if self._due and (self._lockstep is None or self._lockstep.ready(self._now_s, waited_s)):
            self._due = False
            self._tick()
            self._stepped_s = time.monotonic()

    def _tick(self) -> None:
        twist = self._next_twist()
        if self._pause:
            self._suite.step(self._action(np.zeros(6)))
            self._pause -= 1
            if not self._pause:
                self._speak()
        else:
            result = self._suite.step(self._action(twist))
            moving = twist.any() if self._lockstep is not None else self._twist_s >= self._began_s
            self._steps += bool(moving)
            self._rests += not moving
            over = self._steps >= self._most or self._rests >= MOST_RESTS * self._most
            if result.success or over:
                self._finish("success" if result.success else "failure")
        self._ticks += 1
        self._show(self._suite.observe())

    def _next_twist(self) -> Float64[np.ndarray, 6]:
        if self._lockstep is not None:
            return self._lockstep.next()
        fresh = self._now_s - self._twist_s <= HOLD_PERIODS * self.contract.period_s
        return self._twist if fresh else np.zeros(6)

    def _action(self, twist: Float64[np.ndarray, 6]) -> Float32[np.ndarray, " 7"]:
        """The speed of the hand as one row of the suite's actions."""
        contract, out = self.contract, np.zeros(7, np.float32)
        out[:6] = twist * contract.period_s / np.asarray(contract.action.scale)
        out[6] = self._grip
        return out

    def _show(self, seen: Observation) -> None:
        stamp = to_time(self._now_s)
        self._clock_out.publish(Clock(clock=stamp))
        views = self._suite.spec.observation.views
        for view, pixels in zip(views, seen.images, strict=True):
            camera, publisher = self._cameras[view]
            publisher.publish(to_image(pixels, stamp, camera.frame_id))
        state = np.asarray(seen.state, np.float64)
        angle = float(np.linalg.norm(state[3:6]))
        axis = state[3:6] / angle if angle else np.zeros(3)
        quat = np.array([*(axis * np.sin(angle / 2)), np.cos(angle / 2)])
        frame = self.contract.command.frame_id
        fingers = {f"finger_joint{i + 1}": float(state[6 + i]) for i in range(2)}
        self._pose.publish(to_pose(state[:3], quat, stamp, frame))
        self._joints.publish(to_joint_state(fingers, stamp))

    def _finish(self, outcome: str) -> None:
        result = {"seed": self._seed, "outcome": outcome, "steps": self._steps}
        result["rests"] = self._rests
        self._results.append(result)
        self._result.publish(String(data=json.dumps(result)))
        self.get_logger().info(f"seed {self._seed}: {outcome} after {self._steps} steps")
        most = value(self, "episodes")
        if most and len(self._results) >= most:
            self._write()
            self.exit_code = 0
        else:
            self._next_episode()

    def _next_episode(self) -> None:
        self._seed += 1
        start = self._suite.reset(self._seed)
        self._steps = self._rests = 0
        self._pause, self._grip = PAUSE_STEPS, self._gripper.open_at
        self._twist, self._goal = np.zeros(6), start.instruction
        if self._lockstep is not None:
            self._lockstep.clear()
        self._began_s = np.inf  # what was asked for in the scene before must not move this one

    def _speak(self) -> None:
        """Say what is wanted; from the picture on that follows, commands move the arm."""
        self._began_s = self._now_s + self.contract.period_s
        self._words.publish(String(data=self._goal))
        self.get_logger().info(f"seed {self._seed}: {self._goal}")

    def _write(self) -> None:
        if not value(self, "out"):
            return
        path = Path(value(self, "out"))
        part = path.with_name(f".{path.name}.part")
        part.write_text(json.dumps({"schema": 1, "episodes": self._results}, indent=1))
        os.replace(part, path)

    def leave(self) -> None:
        """The process ends: free the simulator."""
        self._write()
        self._suite.close()


def _checked(contract: Contract) -> Gripper:
    """The gripper of a contract that this simulator can keep.

    Raises:
        ContractError: when it is driven in another way.
    """
    twist, gripper = contract.command.kind == "twist", contract.gripper
    if not twist or gripper is None or not contract.feedback.pose:
        raise ContractError(
            f"contract {contract.robot}: the simulator takes twists, has a gripper, and publishes "
            "the hand's pose; use config/tabletop.yaml or a copy"
        )
    return gripper


def main() -> None:
    """Entry point of the console script."""
    sys.exit(run(SimNode))


if __name__ == "__main__":
    main()
