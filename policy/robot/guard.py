"""The guard: nothing passes but what is fresh, finite, within every limit, and from one publisher.

It changes no command. Either a command passes as it is, or the declared safe action goes out
instead. It knows nothing of policies, and keeps its own memory of what the robot was told, so it
goes on when the process that it guards against is gone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from policy.contract import Box
from policy.robot.ages import age_fault
from policy.robot.commands import Trajectory, Twist
from policy.robot.limits import Motion, advance, at_rest, bounds_of, broken, leaves
from policy.robot.safe import safe_action
from policy.robot.trajectory import rejections

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jaxtyping import Float64

    from policy.contract import Contract
    from policy.robot.commands import Command

MAX_PER_PERIOD = 2
BLIND = "blind"  # the guard does not know where the robot is
_TIMING_SLACK = 1e-3


@dataclass(frozen=True)
class Measured:
    """What the guard measured by itself; None where nothing fresh is known."""

    joints: Float64[np.ndarray, " j"] | None = None
    hand: Float64[np.ndarray, 3] | None = None


@dataclass(frozen=True)
class GuardState:
    """The guard's memory.

    Attributes:
        mode: `idle` (nothing was ever asked for), `pass`, `safe`, or `latched`.
        reason: why it is safe or latched.
        faults: faults in a row.
        passed, refused: commands so far; `causes` counts refusals by kind.
        motion: what the robot was told last.
        hold: where the joints were measured when safety began.
        heard_s: when a good command came last.
        stamps: stamps of the last commands that passed.
    """

    motion: Motion
    mode: Literal["idle", "pass", "safe", "latched"] = "idle"
    reason: str = ""
    faults: int = 0
    passed: int = 0
    refused: int = 0
    causes: Mapping[str, int] = field(default_factory=dict)
    hold: Float64[np.ndarray, " j"] | None = None
    heard_s: float = -math.inf
    stamps: tuple[float, ...] = ()


class Guard:
    """The rules of one robot's guard. All state is a `GuardState`, handed in and out.

    Args:
        contract: the robot.
    """

    def __init__(self, contract: Contract) -> None:
        self.contract = contract
        self.bounds = bounds_of(contract)
        self._size = len(self.bounds.names)
        self._twist = contract.command.kind == "twist"

    def initial(self) -> GuardState:
        """Nothing heard yet."""
        return GuardState(at_rest(self._size))

    def reset(self, state: GuardState) -> GuardState:
        """Release a latch; counters stay, and the robot is at rest."""
        return replace(
            self.initial(), passed=state.passed, refused=state.refused, causes=state.causes
        )

    def forget_time(self, state: GuardState) -> GuardState:
        """The clock jumped: silence is counted anew, and no stamp is compared across the jump."""
        return replace(state, heard_s=math.inf, stamps=())

    def judge(
        self, state: GuardState, command: Command, seen: Measured, now_s: float, publishers: int
    ) -> tuple[GuardState, Command | None]:
        """Let a command pass, or refuse it; what goes out now, or None while latched."""
        if state.mode == "latched":
            return self._refuse(state, "latched", state.reason, seen), None
        cause, reason, motion = self._verdict(state, command, seen, now_s, publishers)
        if cause:
            after = self._refuse(state, cause, reason, seen)
            return after, self.safe_action(after, now_s)
        return replace(
            state,
            motion=motion,
            mode="pass",
            reason="",
            faults=0,
            passed=state.passed + 1,
            hold=None,
            heard_s=now_s,
            stamps=(*state.stamps, command.stamp_s)[-MAX_PER_PERIOD:],
        ), command

    def tick(
        self, state: GuardState, seen: Measured, now_s: float
    ) -> tuple[GuardState, Command | None]:
        """Time passes: silence becomes a fault, and the safe action goes on as long as it lasts."""
        if state.mode == "pass":
            if state.heard_s == math.inf:
                state = replace(state, heard_s=now_s)
            silent_ms = (now_s - state.heard_s) * 1e3
            if 0 <= silent_ms <= self.contract.command.age.max_ms:
                return state, None
            state = self._refuse(
                state, "silence", f"no command for {silent_ms:.0f} ms", seen, counts=0
            )
        if state.mode == "idle":
            return state, None
        return state, self.safe_action(state, now_s)

    def stop(self, state: GuardState, reason: str, seen: Measured) -> GuardState:
        """Latch at once."""
        return replace(self._refuse(state, "stop", reason, seen), mode="latched")

    def safe_action(self, state: GuardState, now_s: float) -> Command:
        """What the contract declares safe."""
        return safe_action(self.contract, state.hold, now_s)

    def gripper_fault(
        self, state: GuardState, command: Trajectory, now_s: float, publishers: int
    ) -> str | None:
        """Why a gripper command may not pass, or None. While the arm is safe, the hand holds on."""
        gripper = self.contract.gripper
        if gripper is None or command.joints != (gripper.joint,):
            return f"the contract has no gripper joint {', '.join(command.joints)}"
        if state.mode in ("safe", "latched"):
            return f"the arm is {state.mode}: {state.reason}"
        if publishers > 1:
            return f"{publishers} publishers on {gripper.topic}: one may command"
        fault = age_fault(command.stamp_s, now_s, self.contract.command.age)
        if fault:
            return f"gripper command {fault}"
        problems = rejections(command, (gripper.joint,), now_s)
        low, high = sorted((gripper.open_position, gripper.closed_position))
        if not problems and ((command.positions < low) | (command.positions > high)).any():
            problems = [f"its position is outside {low:g} to {high:g}"]
        return f"gripper command: {'; '.join(problems)}" if problems else None

    def _refuse(
        self, state: GuardState, cause: str, reason: str, seen: Measured, counts: int = 1
    ) -> GuardState:
        # Its own sensors' silence keeps the robot safe while it lasts, and needs no reset after.
        faults = state.faults + (cause != BLIND)
        latched = state.mode == "latched" or faults >= self.contract.command.latch_after
        hold = state.hold
        if state.mode in ("idle", "pass") and not self._twist:
            hold = seen.joints
        return replace(
            state,
            mode="latched" if latched else "safe",
            reason=reason,
            faults=faults,
            refused=state.refused + counts,
            causes={**state.causes, cause: state.causes.get(cause, 0) + 1},
            hold=hold,
            motion=self._rest(hold),
            stamps=(),
        )

    def _rest(self, joints: Float64[np.ndarray, " j"] | None) -> Motion:
        """No motion, from where the joints were measured; a twist knows of none."""
        return at_rest(self._size, None if self._twist else joints)

    def _verdict(
        self, state: GuardState, command: Command, seen: Measured, now_s: float, publishers: int
    ) -> tuple[str, str, Motion]:
        """Kind and sentence of the first fault, or two empty strings and the motion to come."""
        rest = self._rest(seen.joints)
        if publishers > 1:
            text = f"{publishers} publishers on {self.contract.command.topic}: one may command"
            return "publishers", text, rest
        fault = age_fault(command.stamp_s, now_s, self.contract.command.age)
        if fault:
            return "age", f"command {fault}", rest
        period = self.contract.period_s
        crowded = len(state.stamps) == MAX_PER_PERIOD and (
            command.stamp_s < state.stamps[0] + period / 2
        )
        if crowded and not _stops(command):
            return "rate", f"more than {MAX_PER_PERIOD} commands in one period", rest
        if isinstance(command, Twist) and self._twist:
            return self._twist_verdict(state, command, seen)
        if isinstance(command, Trajectory) and not self._twist:
            return self._trajectory_verdict(state, command, seen, now_s)
        return "kind", f"{type(command).__name__} for a {self.contract.command.kind} robot", rest

    def _twist_verdict(
        self, state: GuardState, command: Twist, seen: Measured
    ) -> tuple[str, str, Motion]:
        rest, frame = at_rest(6), self.contract.command.frame_id
        if command.frame_id != frame:
            return "frame", f"command is in frame {command.frame_id!r}, not in {frame!r}", rest
        if command.values.shape != (6,) or not np.isfinite(command.values).all():
            return "finite", "command is not finite", rest
        if _stops(command):
            return "", "", rest
        then = advance(state.motion, command.values, self.contract.period_s)
        problems = broken(self.bounds, state.motion, then, self.contract.period_s)
        if problems:
            return "limit", "; ".join(problems), rest
        problem = self._outside(seen, command.values[:3])
        cause = BLIND if seen.hand is None else "workspace"
        return (cause, problem, rest) if problem else ("", "", then)

    def _outside(self, seen: Measured, velocity: Float64[np.ndarray, 3]) -> str:
        box = self.contract.limits.workspace
        if not isinstance(box, Box):
            return ""
        if seen.hand is None:
            return f"{self.contract.feedback.pose} is silent, so the workspace cannot be kept"
        out = leaves(box, seen.hand, velocity, self.contract.period_s)
        # A thousandth of a period's reach: the measurement moved since the command was made.
        slack = 1e-3 * self.contract.period_s * float(self.bounds.velocity[0])
        if np.abs(out).max() <= slack:
            return ""
        return f"the hand at {np.round(seen.hand, 3).tolist()} would leave the workspace"

    def _trajectory_verdict(
        self, state: GuardState, command: Trajectory, seen: Measured, now_s: float
    ) -> tuple[str, str, Motion]:
        joints, period = self.contract.command.joints, self.contract.period_s
        rest = self._rest(seen.joints)
        if _stops(command) and command.joints == joints:
            return "", "", rest
        problems = rejections(command, joints, now_s)
        if command.joints != joints and not problems:
            problems = [f"joints are in the order {', '.join(command.joints)}"]
        if problems:
            finite = any("finite" in p for p in problems)
            return "finite" if finite else "trajectory", "; ".join(problems), rest
        steps = np.diff(command.times_s, prepend=0.0)
        if (np.abs(steps - period) > _TIMING_SLACK * period).any():
            return "trajectory", f"points are not one period of {period:g} s apart", rest
        if state.motion.position is None:
            if seen.joints is None:
                text = f"{self.contract.feedback.joint_states} is silent: start is not known"
                return BLIND, text, rest
            state = replace(state, motion=rest)
        return self._walk(state.motion, command, seen)

    def _walk(self, motion: Motion, command: Trajectory, seen: Measured) -> tuple[str, str, Motion]:
        """Judge every point in turn; only the first is told to the robot before the next command.

        The points behind it come true only when nothing follows, and then the controller's spline
        brakes to the last; so they keep positions and speeds, not acceleration.
        """
        period, before = self.contract.period_s, motion
        first = before
        for index, point in enumerate(command.positions):
            speed = (point - before.position) / period
            then = Motion(speed, (speed - before.velocity) / period, point)
            problems = broken(self.bounds, before, then, period)
            if index:
                problems = [p for p in problems if not p.startswith(("acceleration", "jerk"))]
            if problems:
                where = f"point {index}: {'; '.join(problems)}"
                return "limit", where, self._rest(seen.joints)
            before, first = then, then if index == 0 else first
        box = self.contract.limits.workspace
        if isinstance(box, Box):
            if seen.hand is None:
                return BLIND, f"{self.contract.feedback.pose} is silent", first
            low, high = np.array(box.lower), np.array(box.upper)
            if (seen.hand < low).any() or (seen.hand > high).any():
                place = np.round(seen.hand, 3).tolist()
                return "workspace", f"the hand at {place} is outside the workspace", first
        return "", "", first


def _stops(command: Command) -> bool:
    """Whether a command only stops the robot, which is allowed at any time."""
    return command.still if isinstance(command, Twist) else not len(command.times_s)
