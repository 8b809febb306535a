"""robosuite's OSC_POSE controller and gripper, driven without robosuite's bookkeeping.

The environment's own step spends most of its time on observables, buffers and name look-ups that a
rollout does not need. Here the same controller object computes the same torques.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaxtyping import Float64

    from sim.suites.tabletop.scene import TabletopEnv

_OPEN = np.array([1.0, -1.0])


class Controller:
    """The arm's OSC controller and the gripper's position servo.

    The arm's goal is relative to the pose reached when a step begins, so between steps the only
    memory is how far the gripper's command has travelled (`grip`).

    Args:
        env: the built environment.
    """

    def __init__(self, env: TabletopEnv) -> None:
        robot = env.robots[0]
        self._data = env.sim.data._data
        robot.composite_controller.update_state()
        self._osc = robot.part_controllers["right"]
        gripper = robot.gripper["right"]
        model = env.sim.model._model
        self._arm_motors = np.array([model.actuator(n).id for n in robot.robot_model.actuators])
        self._grip_motors = np.array([model.actuator(n).id for n in gripper.actuators])
        self._arm_qpos = np.array([model.joint(n).qposadr[0] for n in robot.robot_model.arm_joints])
        self._grip_qpos = np.array([model.joint(n).qposadr[0] for n in gripper.joints])
        self._torque_low, self._torque_high = model.actuator_ctrlrange[self._arm_motors].T
        low, high = model.actuator_ctrlrange[self._grip_motors].T
        self._grip_middle, self._grip_half = (low + high) / 2, (high - low) / 2
        self._grip_speed = gripper.speed
        self.grip = _OPEN.copy()

    def reset(self, arm: Sequence[float]) -> None:
        """Put the arm at these joint angles [rad] with an open gripper; call before mj_forward."""
        self._data.qpos[self._arm_qpos] = arm
        self.grip = _OPEN.copy()
        self._data.qpos[self._grip_qpos] = self._grip_target()
        self._osc.initial_joint = np.array(arm)
        self.refresh()

    def refresh(self) -> None:
        """Forget what was read of the simulator; call after its state was set from outside."""
        self._osc.new_update = True

    def set_goal(self, action: Float64[np.ndarray, " 7"]) -> None:
        """Take the action of one control step; derived quantities of the state must be current."""
        self._osc.update()
        self._osc.set_goal(action[:6])
        step = self._grip_speed * np.sign(action[6])
        self.grip = np.clip(self.grip - step * _OPEN, -1.0, 1.0)
        self._data.ctrl[self._grip_motors] = self._grip_target()

    def apply(self) -> None:
        """Write the arm's torques for one physics step."""
        torques = self._osc.run_controller()
        self._data.ctrl[self._arm_motors] = np.clip(torques, self._torque_low, self._torque_high)

    def _grip_target(self) -> Float64[np.ndarray, " 2"]:
        return self._grip_middle + self._grip_half * self.grip
