"""Rows into commands: the motion so far, the gripper, and the way to safety and back."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from policy.robot.commands import Trajectory, Twist
from policy.robot.limits import at_rest
from policy.robot.rows import RefusedError, anchor, interpret
from policy.robot.safe import safe_action
from policy.robot.shaping import Shaper
from policy.robot.told import Told
from policy.robot.trajectory import encode

if TYPE_CHECKING:
    from jaxtyping import Float, Float64

    from policy.contract import Contract
    from policy.robot.commands import Command
    from policy.robot.health import Ledger
    from policy.robot.limits import Motion
    from policy.robot.senses import Senses


class Output(NamedTuple):
    """What one tick sends.

    Attributes:
        command: the command; None when there is nothing to say.
        gripper: the gripper's command; None as above.
        safe: why the command is the safe action; empty in ordinary motion.
        stamp_s: stamp of the observation that the command answers; 0 when it answers none.
        fresh: whether it is the first row of a chunk.
    """

    command: Command | None = None
    gripper: Trajectory | None = None
    safe: str = ""
    stamp_s: float = 0.0
    fresh: bool = False


class Mover:
    """What the robot was told last, and what it is told next.

    Args:
        contract: the robot.
        senses: where it is.
        ledger: where clamps and safe stops are counted.
    """

    def __init__(self, contract: Contract, senses: Senses, ledger: Ledger) -> None:
        self.contract, self.senses, self.ledger = contract, senses, ledger
        self.shaper = Shaper(contract)
        self.told = Told(self.shaper.bounds, contract.period_s)
        self.moved = False
        self.safe = ""
        self._size = len(self.shaper.bounds.names)
        self._gripper: float | None = None
        self._hold: np.ndarray | None = None

    def rows(self, actions: Float[np.ndarray, "k dof"], now_s: float) -> Float64[np.ndarray, "k d"]:
        """A policy's chunk as rows of this robot, checked; the gripper is the last column.

        Raises:
            RefusedError: when the chunk is beyond a hard limit, or not finite.
        """
        rows = interpret(actions, self.contract)
        if rows.kind == "delta":
            rows = anchor(rows, self._start(now_s).position)  # type: ignore[arg-type]
        rows, clamped = self.shaper.check_chunk(rows)
        self._note(clamped)
        gripper = rows.gripper if rows.gripper.shape[1] else np.zeros((len(rows.values), 1))
        return np.concatenate([rows.values, gripper], axis=1)

    def move(
        self, row: Float64[np.ndarray, " d"], ahead: Float64[np.ndarray, "k d"], now_s: float
    ) -> Output:
        """The command for `row`; `ahead` are rows that a trajectory may look ahead to.

        Raises:
            RefusedError: when the limits leave no motion towards it.
        """
        output = self._command(row[:-1], ahead, now_s)
        self._gripper = float(row[-1])
        return output._replace(gripper=self._grip(now_s))

    def rest(self, now_s: float) -> Output:
        """Come to rest as fast as the limits allow, and stay there.

        Raises:
            RefusedError: when the limits leave no way to.
        """
        position = self._start(now_s).position
        still = np.zeros(self._size) if position is None else position
        output = self._command(still, np.zeros((0, 0)), now_s)
        return output._replace(gripper=self._grip(now_s))

    def go_safe(self, reason: str, now_s: float) -> Output:
        """The declared safe action; nothing, when nothing was ever set in motion."""
        if not self.moved:
            return Output(safe=reason)
        if not self.safe:
            self._hold = self.senses.joints(now_s)
            self.ledger.count("safe")
        self.safe = self.ledger.notes["safe"] = reason
        command = safe_action(self.contract, self._hold, now_s)
        self.told.rest(command)
        return Output(command, None, reason)

    def settle(self) -> None:
        """Forget the motion: from here on the robot is somebody else's to move."""
        self.moved, self.safe, self._gripper = False, "", None
        self.told.forget()

    def _command(self, wanted: np.ndarray, ahead: np.ndarray, now_s: float) -> Output:
        hand, start = self.senses.hand(now_s), self._start(now_s)
        shaped = self.shaper.step(start, wanted, hand)
        command = self._encode(shaped.motion, ahead, hand, now_s)
        self._note(shaped.clamped)
        self.told.say(command, start)
        self.moved, self.safe, self._hold = True, "", None
        return Output(command)

    def _encode(
        self, motion: Motion, ahead: np.ndarray, hand: np.ndarray | None, now_s: float
    ) -> Command:
        command = self.contract.command
        if motion.position is None:
            return Twist(now_s, command.frame_id, motion.velocity)
        points, then = [motion.position], motion
        for row in ahead[: command.lookahead - 1]:
            then = self.shaper.step(then, row[:-1], hand).motion
            points.append(then.position)  # type: ignore[arg-type]
        return encode(now_s, command.joints, np.array(points), self.contract.period_s)

    def _grip(self, now_s: float) -> Trajectory | None:
        gripper = self.contract.gripper
        if gripper is None or self._gripper is None:
            return None
        where, move = np.array([[self._gripper]]), np.array([gripper.move_s])
        return Trajectory(now_s, (gripper.joint,), move, where, np.zeros((1, 1)))

    def _start(self, now_s: float) -> Motion:
        """What the robot does by now; at rest where it is measured when it was told nothing."""
        if self.told.motion is not None:
            return self.told.motion
        if self.contract.command.kind == "twist":
            return at_rest(self._size)
        joints = self.senses.joints(now_s)
        if joints is None:
            raise RefusedError(f"{self.contract.feedback.joint_states} is silent: start not known")
        return at_rest(self._size, joints)

    def _note(self, clamped: tuple[str, ...]) -> None:
        if clamped:
            self.ledger.count("clamped")
            self.ledger.notes["clamped"] = "; ".join(clamped)
