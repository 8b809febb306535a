"""Commands on the wire back into action rows, where only commands were recorded.

What was sent is what the policy said after limits and blending: close to it, not equal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from policy.replay.messages import TRAJECTORY, TWIST, decode

if TYPE_CHECKING:
    from jaxtyping import Float32

    from policy.contract import Contract
    from policy.replay.storage import RawMessage


class CommandReader:
    """Reads a robot's commands; remembers the gripper's last one.

    Args:
        contract: the robot.
    """

    def __init__(self, contract: Contract) -> None:
        self._contract = contract
        self._gripper: float | None = None
        gripper = contract.gripper
        self.topics = {contract.command.topic, *([gripper.topic] if gripper else [])}

    def row(self, message: RawMessage) -> Float32[np.ndarray, " dof"] | None:
        """The action row of one command; None for the gripper's, and for a halt.

        Joint deltas are not taken back: they count from where the joints were.
        """
        decoded = decode(message.data, message.type)
        if message.topic != self._contract.command.topic:
            self._grip(decoded)
            return None
        driven = self._driven(decoded, message.type)
        if driven is None or self._contract.action.kind == "joint_delta":
            return None
        action = self._contract.action
        row = np.full(len(action.names), np.nan, np.float32)
        row[list(action.columns)] = driven / np.asarray(action.scale)
        if action.gripper_column is not None and self._gripper is not None:
            row[action.gripper_column] = self._gripper
        return row

    def _driven(self, decoded: Any, kind: str) -> np.ndarray | None:
        if kind == TWIST:
            parts = (decoded.twist.linear, decoded.twist.angular)
            speed = np.array([getattr(part, axis) for part in parts for axis in "xyz"])
            delta = self._contract.action.kind == "delta_eef"
            return speed / self._contract.rate_hz if delta else speed
        if kind == TRAJECTORY and decoded.points:
            at = dict(zip(decoded.joint_names, decoded.points[0].positions, strict=False))
            joints = self._contract.command.joints
            return np.array([at[j] for j in joints]) if all(j in at for j in joints) else None
        return None

    def _grip(self, decoded: Any) -> None:
        gripper = self._contract.gripper
        if gripper is None or not decoded.points:
            return
        at = float(decoded.points[-1].positions[0])
        low, high = gripper.closed_position, gripper.open_position
        opened = (at - low) / (high - low)
        self._gripper = gripper.closed_at + opened * (gripper.open_at - gripper.closed_at)
