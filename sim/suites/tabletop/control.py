"""robosuite's OSC_POSE controller and gripper, driven without robosuite's bookkeeping.

The environment's own step spends most of its time on observables, buffers and name look-ups that a
rollout does not need. Here robosuite's controller object still owns gains and goals, and its
compiled kernels still do the algebra (Khatib 1987); only the plumbing around them is ours. A test
holds the torques against the controller's own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import mujoco
import numpy as np
from robosuite.utils.control_utils import (
    nullspace_torques,
    opspace_matrices,
    orientation_error,
)

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
        self._model, self._data = env.sim.model._model, env.sim.data._data
        robot.composite_controller.update_state()
        self._osc = robot.part_controllers["right"]
        gripper = robot.gripper["right"]
        model = self._model
        self._arm_motors = np.array([model.actuator(n).id for n in robot.robot_model.actuators])
        self._grip_motors = np.array([model.actuator(n).id for n in gripper.actuators])
        self._arm_qpos = np.array([model.joint(n).qposadr[0] for n in robot.robot_model.arm_joints])
        self._grip_qpos = np.array([model.joint(n).qposadr[0] for n in gripper.joints])
        self._torque_low, self._torque_high = model.actuator_ctrlrange[self._arm_motors].T
        low, high = model.actuator_ctrlrange[self._grip_motors].T
        self._grip_middle, self._grip_half = (low + high) / 2, (high - low) / 2
        self._grip_speed = gripper.speed
        first = model.joint(robot.robot_model.arm_joints[0]).dofadr[0]
        self._dofs = slice(first, first + len(self._arm_qpos))
        self._site = model.site(gripper.important_sites["grip_site"]).id
        self._jacobian = np.zeros((6, model.nv))
        self._mass = np.zeros((model.nv, model.nv))
        self._goal_pos, self._goal_rot = np.zeros(3), np.eye(3)
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
        osc = self._osc
        osc.update()
        osc.set_goal(action[:6])
        self._goal_pos = osc.origin_pos + osc.origin_ori @ osc.goal_pos
        self._goal_rot = osc.origin_ori @ osc.goal_ori
        step = self._grip_speed * np.sign(action[6])
        self.grip = np.clip(self.grip - step * _OPEN, -1.0, 1.0)
        self._data.ctrl[self._grip_motors] = self._grip_target()
        self.refresh()

    def apply(self) -> None:
        """Write the arm's torques for one physics step."""
        self._data.ctrl[self._arm_motors] = np.clip(
            self.torques(), self._torque_low, self._torque_high
        )

    def torques(self) -> Float64[np.ndarray, " 7"]:
        """Operational-space torques towards the goal, N m, with gravity compensation."""
        data, osc, dofs = self._data, self._osc, self._dofs
        mujoco.mj_jacSite(self._model, data, self._jacobian[:3], self._jacobian[3:], self._site)
        mujoco.mj_fullM(self._model, self._mass, data.qM)
        jacobian = np.ascontiguousarray(self._jacobian[:, dofs])
        mass = np.ascontiguousarray(self._mass[dofs, dofs])
        qvel = data.qvel[dofs]
        rotation = data.site_xmat[self._site].reshape(3, 3)
        error = np.empty(6)
        error[:3] = self._goal_pos - data.site_xpos[self._site]
        error[3:] = orientation_error(self._goal_rot, rotation)
        wrench = osc.kp * error - osc.kd * (jacobian @ qvel)
        _, lambda_pos, lambda_ori, nullspace = opspace_matrices(
            mass, jacobian, jacobian[:3], jacobian[3:]
        )
        wrench[:3], wrench[3:] = lambda_pos @ wrench[:3], lambda_ori @ wrench[3:]
        posture = nullspace_torques(
            mass, nullspace, osc.initial_joint, data.qpos[self._arm_qpos], qvel
        )
        return jacobian.T @ wrench + data.qfrc_bias[dofs] + posture

    def _grip_target(self) -> Float64[np.ndarray, " 2"]:
        return self._grip_middle + self._grip_half * self.grip
