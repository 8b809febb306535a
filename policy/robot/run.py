"""One instruction from its first word to its end: how it goes, and why it ended."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from policy.robot.session import Now, Session


class Code(IntEnum):
    """Why a run ended, as in leanvla_msgs/action/RunInstruction."""

    NONE = 0
    INVALID_INSTRUCTION = 1
    NOT_ACTIVE = 2
    PREEMPTED = 3
    CANCELED = 4
    FAULT = 5
    DEACTIVATED = 6


class Ended(NamedTuple):
    """The end of a run; `NONE` when it ran for all of its time."""

    code: Code
    reason: str


class Progress(NamedTuple):
    """How it goes.

    Attributes:
        step: rows that the robot was told since the words were heard.
        age_ms: of the picture that the newest chunk answers.
        latency_ms: from that picture to the first command of its chunk.
        kept_tokens, visual_tokens: of the newest query.
    """

    step: int = 0
    age_ms: float = 0.0
    latency_ms: float = 0.0
    kept_tokens: int = 0
    visual_tokens: int = 0


class Run:
    """Watches over one instruction of a session.

    Args:
        session: who follows it.
        text: the words; None goes on with those that the session has.
        now: the time.
        max_s: how long at most, seconds of the node's clock; 0 sets no limit.
        episode_id: the caller's own name for it.
    """

    def __init__(
        self,
        session: Session,
        text: str | None,
        now: Now,
        max_s: float = 0.0,
        episode_id: str = "",
    ) -> None:
        self.episode_id = episode_id
        self.instruction = session.instruction if text is None else text
        self._session, self._max_s = session, max_s
        self._began_s, self._rows = now.ros_s, session.rows
        self._goal = session.goals + (text is not None)
        self.ended: Ended | None = None
        if not 0.0 <= max_s < float("inf"):
            self.end(Code.INVALID_INSTRUCTION, f"max_duration is {max_s:g} s: give none, or more")
        elif text is not None:
            refused = session.instruct(text, now)
            if refused:
                self.end(Code.INVALID_INSTRUCTION, refused)

    def look(self, now: Now) -> Ended | None:
        """Whether it has ended by now; when its time is over the robot comes to rest."""
        session = self._session
        if self.ended is not None:
            return self.ended
        if session.goals > self._goal:
            self.end(Code.PREEMPTED, f"another instruction came: {session.instruction!r}")
        elif session.fault:
            self.end(Code.FAULT, session.fault)
        elif self._max_s and now.ros_s - self._began_s >= self._max_s:
            session.dismiss("the instruction's time is over")
            self.end(Code.NONE, f"its {self._max_s:g} s are over")
        return self.ended

    def cancel(self) -> None:
        """Come to rest, and follow it no longer."""
        if self.ended is None:
            self._session.dismiss("the instruction was canceled")
            self.end(Code.CANCELED, "canceled")

    def end(self, code: Code, reason: str) -> Ended:
        """It ended; the first reason stays."""
        self.ended = self.ended or Ended(code, reason)
        return self.ended

    def progress(self, now: Now) -> Progress:
        """How it goes by now."""
        session, timing = self._session, self._session.timing
        plan, latencies = session.plan, session.latency_ms.values
        return Progress(
            session.rows - self._rows,
            (now.ros_s - plan.stamp_s) * 1e3 if plan.rows is not None else 0.0,
            latencies[-1] if latencies else 0.0,
            timing.kept_tokens if timing else 0,
            timing.visual_tokens if timing else 0,
        )
