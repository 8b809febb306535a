"""Simulated time that waits for the robot's controller, so that a busy machine changes no outcome.

A step is made when the motion of this instant has arrived, and every motion moves one step, however
long the policy thinks: nothing is lost, done twice, or late because some process was not scheduled.
Only where an answer stays out does time go on without it, at its ordinary pace: a policy that is
gone, paused or stopped must not stop the world.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from jaxtyping import Float64

THINK_S = 20.0  # of real time, how long a policy may rest before time goes on
SILENT_S = 2.0  # how long an instant may pass without any command
MOST = 4  # commands that may wait: more than a guard lets through in one period
_SLACK_S = 1e-6


@dataclass
class Asked:
    """What the hand is to do, and whether what the gripper is to do with it has come too."""

    twist: Float64[np.ndarray, 6]
    whole: bool = False

    @property
    def moves(self) -> bool:
        """Whether it is a motion."""
        return bool(self.twist.any())


class Lockstep:
    """Commands in the order of their arrival, and whether the next step may be made.

    Args:
        period_s: real time of a step while nobody has commanded yet.
    """

    def __init__(self, period_s: float) -> None:
        self._period_s = period_s
        self._waiting: deque[Asked] = deque(maxlen=MOST)
        self._newest_s = -np.inf
        self._resting = False

    def take(self, twist: Float64[np.ndarray, 6], stamp_s: float, began_s: float) -> None:
        """A command arrived; one that is older than the scene only says that somebody is there."""
        self._newest_s = stamp_s
        if stamp_s < began_s - _SLACK_S:
            return
        # A rest before a motion is no motion: it was sent while the policy was thinking.
        if self._waiting and not self._waiting[-1].moves:
            self._waiting.pop()
        self._waiting.append(Asked(twist))

    def take_gripper(self) -> None:
        """What the gripper is to do has arrived; it follows the motion that it belongs to."""
        for asked in self._waiting:
            asked.whole = True

    def ready(self, now_s: float, waited_s: float) -> bool:
        """Whether the step of this instant may be made.

        Args:
            now_s: simulated time.
            waited_s: how long the step has been waited for, real time.
        """
        if not np.isfinite(self._newest_s):
            return waited_s >= self._period_s
        if waited_s >= THINK_S:
            self._resting = True
        if self._waiting and self._waiting[0].moves:
            return self._waiting[0].whole or waited_s >= SILENT_S
        if self._newest_s < now_s - _SLACK_S:
            return waited_s >= SILENT_S
        return not self._waiting or self._resting

    def next(self) -> Float64[np.ndarray, 6]:
        """The command of this step; rest where there is none."""
        asked = self._waiting.popleft() if self._waiting else Asked(np.zeros(6))
        if asked.moves:
            self._resting = False
        return asked.twist

    def clear(self) -> None:
        """A new scene."""
        self._waiting.clear()
        self._resting = False
