"""Simulated time that waits for the robot's controller, so that a busy machine changes no outcome.

A real robot's time goes on while a policy thinks, and so does this simulator's: the arm rests then.
But no command is lost, held for twice its time, or late because some process was not scheduled: a
step is made when the command for this instant has arrived, and every command moves one step.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from jaxtyping import Float64

PATIENCE = 20  # periods of waiting for one command; then time goes on without it
MOST = 4  # commands that may wait: more than a guard lets through in one period
_SLACK_S = 1e-6


class Lockstep:
    """Commands in the order of their arrival, and whether the next step may be made."""

    def __init__(self) -> None:
        self._waiting: deque[Float64[np.ndarray, 6]] = deque(maxlen=MOST)
        self._newest_s = -np.inf
        self._waited = 0

    def take(self, twist: Float64[np.ndarray, 6], stamp_s: float, began_s: float) -> None:
        """A command arrived; one that is older than the scene only says that somebody is there."""
        self._newest_s = stamp_s
        if stamp_s < began_s - _SLACK_S:
            return
        # A rest before a motion is no motion: it was sent while the policy was thinking.
        if self._waiting and not self._waiting[-1].any():
            self._waiting.pop()
        self._waiting.append(twist)

    def ready(self, now_s: float) -> bool:
        """Whether the command for this instant is there, or nobody has ever commanded."""
        silent = not np.isfinite(self._newest_s)
        return silent or self._newest_s >= now_s - _SLACK_S or self._waited >= PATIENCE

    def wait(self) -> None:
        """One period passed in vain."""
        self._waited += 1

    def next(self) -> Float64[np.ndarray, 6]:
        """The command of this step; rest where there is none."""
        self._waited = 0
        return self._waiting.popleft() if self._waiting else np.zeros(6)

    def clear(self) -> None:
        """A new scene."""
        self._waiting.clear()
