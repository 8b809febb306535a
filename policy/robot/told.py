"""The motion so far, on which policy and guard agree: what was heard behind the guard comes first.

Limits of acceleration and jerk compare a command with the one before. The guard counts from what it
let pass; this counts from the same, by listening to what the robot was told, and adds what is still
under way. Without it, a policy whose command was refused would go on from a motion that never was,
and every next command would be a leap.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from policy.robot.commands import Trajectory, Twist
from policy.robot.limits import Motion, advance, at_rest, broken

if TYPE_CHECKING:
    from policy.robot.commands import Command
    from policy.robot.limits import Bounds

UNDER_WAY = 16  # commands that may be between policy and guard at once
_SAME_S = 1e-6  # stamps are rounded on the wire
_SAME = 1e-6  # of a limit: the same motion, computed from another side


class Sent(NamedTuple):
    """A command under way, and the motion that it was made from."""

    command: Command
    before: Motion | None


def follow(motion: Motion | None, command: Command, size: int, period_s: float) -> Motion | None:
    """What the robot does when it is told `command`, as the guard counts.

    Args:
        motion: what it did before; None at rest, wherever its joints are measured.
        command: what it is told.
        size: axes or joints.
        period_s: time between two commands.
    """
    if isinstance(command, Twist):
        rest = at_rest(size)
        return rest if command.still else advance(motion or rest, command.values, period_s)
    if not len(command.times_s):
        return None
    point = command.positions[0]
    if motion is None or motion.position is None:
        return at_rest(size, point)
    speed = (point - motion.position) / period_s
    return Motion(speed, (speed - motion.velocity) / period_s, point)


class Told:
    """What the robot does by now, if everything under way arrives.

    Args:
        bounds: the robot's limits; what breaks them will not pass.
        period_s: time between two commands.

    Attributes:
        motion: the motion so far; None at rest, wherever the joints are measured.
    """

    def __init__(self, bounds: Bounds, period_s: float) -> None:
        self.motion: Motion | None = None
        self._bounds, self._period_s = bounds, period_s
        self._heard: Motion | None = None
        self._listening = False
        self._sent: deque[Sent] = deque(maxlen=UNDER_WAY)

    def say(self, command: Command, before: Motion | None) -> None:
        """A command leaves, made from the motion `before`."""
        self._sent.append(Sent(command, before))
        self.motion = self._follow(before, command)

    def rest(self, command: Command) -> None:
        """The safe action leaves: whatever the robot does now, it ends at rest."""
        self._sent.append(Sent(command, self.motion))
        self.motion = None if isinstance(command, Twist) else self._follow(None, command)

    def hear(self, command: Command) -> bool:
        """A command left the guard; whether a motion of ours is not the robot's.

        The guard passes commands in their order and unchanged. Where it puts its own in place of
        one of ours, the robot is at rest, and what is under way is judged from there.
        """
        before = self.motion
        self._take(command)
        self.motion = self._predict()
        return _moves(before) and not self._same(before, self.motion)

    def forget_time(self) -> None:
        """The clock jumped: no stamp is compared across the jump."""
        self._sent.clear()

    def forget(self) -> None:
        """From here on the robot is somebody else's to move."""
        self.motion = self._heard = None
        self._listening = False
        self._sent.clear()

    def _take(self, command: Command) -> None:
        for index, sent in enumerate(self._sent):
            if _equal(sent.command, command):
                start = self._start(self._heard, self._sent[0])
                for _ in range(index + 1):  # those before it were refused, or lost
                    self._sent.popleft()
                break
        else:
            start = None
            judged_s = command.stamp_s - self._period_s / 2
            while self._sent and self._sent[0].command.stamp_s <= judged_s:
                self._sent.popleft()
        self._heard, self._listening = self._follow(start, command), True

    def _predict(self) -> Motion | None:
        motion = self._heard
        for sent in self._sent:
            start = self._start(motion, sent)
            motion = self._follow(start, sent.command)
            if start is None or motion is None or _stops(sent.command):
                continue
            if broken(self._bounds, start, motion, self._period_s):  # it will be refused
                motion = at_rest(len(self._bounds.names), start.position)
        return motion

    def _start(self, motion: Motion | None, sent: Sent) -> Motion | None:
        """What a command is judged from; where nothing was told, both sides begin as measured."""
        known = motion is not None or (self._listening and _moves(sent.before))
        return motion if known else sent.before

    def _follow(self, motion: Motion | None, command: Command) -> Motion | None:
        return follow(motion, command, len(self._bounds.names), self._period_s)

    def _same(self, one: Motion | None, other: Motion | None) -> bool:
        rest = at_rest(len(self._bounds.names))
        one, other = one or rest, other or rest
        return bool(
            (np.abs(one.velocity - other.velocity) <= _SAME * self._bounds.velocity).all()
            and (
                np.abs(one.acceleration - other.acceleration) <= _SAME * self._bounds.acceleration
            ).all()
        )


def _moves(motion: Motion | None) -> bool:
    return motion is not None and bool(motion.velocity.any())


def _stops(command: Command) -> bool:
    return command.still if isinstance(command, Twist) else not len(command.times_s)


def _equal(one: Command, other: Command) -> bool:
    if abs(one.stamp_s - other.stamp_s) > _SAME_S:
        return False
    if isinstance(one, Trajectory) and isinstance(other, Trajectory):
        return np.array_equal(one.positions, other.positions)
    return (
        isinstance(one, Twist)
        and isinstance(other, Twist)
        and np.array_equal(one.values, other.values)
    )
