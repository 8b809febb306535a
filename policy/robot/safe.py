"""The declared safe action, as a command."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from policy.robot.commands import Trajectory, halt, zero_twist

if TYPE_CHECKING:
    from jaxtyping import Float64

    from policy.contract import Contract
    from policy.robot.commands import Command


def safe_action(
    contract: Contract, hold: Float64[np.ndarray, " j"] | None, now_s: float
) -> Command:
    """What the contract declares safe.

    Args:
        contract: the robot.
        hold: where the joints were measured when safety began; without a fresh measurement the
            controller is told to hold by itself, since it knows where it is. Never zeros.
        now_s: stamp of the command.
    """
    command = contract.command
    if command.kind == "twist":
        return zero_twist(now_s, command.frame_id)
    if command.safe_action == "stop" or hold is None:
        return halt(now_s, command.joints)
    rest = np.zeros((1, len(command.joints)))
    return Trajectory(now_s, command.joints, np.array([contract.period_s]), hold[None], rest)
