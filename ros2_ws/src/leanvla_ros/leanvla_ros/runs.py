"""Runs of instructions towards the outside: `~/run`, `~/cancel`, and an action where it is built.

The action's type is an interface package that has to be compiled (`leanvla_msgs`, by colcon). The
topic and the service are standard messages, there everywhere, and say the same.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from leanvla_ros.process import now
from policy.robot.run import Code, Ended, Run

if TYPE_CHECKING:
    from collections.abc import Callable
    from threading import RLock

    from rclpy.node import Node

    from policy.robot.session import Session

LOOK_S = 0.1  # how soon an end is noticed
TELL_EVERY = 5  # looks between two words about how it goes


class Runs:
    """The one instruction that is followed, and whoever asked for it.

    Args:
        node: whose clock counts.
        session: who follows it.
        lock: held at every touch of the session.
        tell: takes what `~/run` says.
    """

    def __init__(
        self, node: Node, session: Session, lock: RLock, tell: Callable[[str], None]
    ) -> None:
        self._node, self._session, self._lock, self._tell = node, session, lock, tell
        self._run: Run | None = None
        self._asker: Asker | None = None
        self._looks = 0

    def begin(
        self,
        text: str | None,
        max_s: float = 0.0,
        episode_id: str = "",
        asker: Asker | None = None,
    ) -> Ended | None:
        """Follow new words, or with none those that are there; why they were refused, or None.

        Whoever was followed before is told.
        """
        with self._lock:
            run = Run(self._session, text, now(self._node), max_s, episode_id)
            if run.ended is not None:
                if asker is not None:
                    asker.ended(run.ended)
                return run.ended
            self._finish(Code.PREEMPTED, f"another instruction came: {run.instruction!r}")
            self._run, self._asker, self._looks = run, asker, 0
        self.look()
        return None

    def resume(self) -> None:
        """Go on with the words that are there, where nobody's run is under way."""
        if self._run is None and self._session.instruction:
            self.begin(None)

    def look(self) -> None:
        """Tell how it goes, and whether it has ended."""
        with self._lock:
            if self._run is None:
                return
            if self._asker is not None and self._asker.wants_out():
                self._run.cancel()
            if self._run.look(now(self._node)) is not None:
                self._finish(Code.NONE, "")
            elif self._looks % TELL_EVERY == 0:
                self._say(self._run)
            self._looks += 1

    def cancel(self) -> None:
        """Come to rest, and follow it no longer."""
        with self._lock:
            if self._run is not None:
                self._run.cancel()
            else:
                self._session.dismiss("the instruction was canceled")
        self.look()

    def close(self, reason: str) -> None:
        """The gate closes."""
        with self._lock:
            self._finish(Code.DEACTIVATED, reason)

    def _finish(self, code: Code, reason: str) -> None:
        run, asker, self._run, self._asker = self._run, self._asker, None, None
        if run is None:
            return
        ended = run.end(code, reason)
        self._say(run)
        if asker is not None:
            # Its client knows it as ended: no reset and no activation may bring it back.
            if ended.code != Code.PREEMPTED:
                self._session.dismiss(f"the goal ended: {ended.reason}")
            asker.ended(ended)

    def _say(self, run: Run) -> None:
        progress = run.progress(now(self._node))
        if self._asker is not None and run.ended is None:
            self._asker.goes(progress)
        said: dict[str, Any] = {
            "state": "running" if run.ended is None else "ended",
            "instruction": run.instruction,
            "episode_id": run.episode_id,
            **progress._asdict(),
        }
        if run.ended is not None:
            said |= {"error_code": int(run.ended.code), "termination_reason": run.ended.reason}
        self._tell(json.dumps(said))


class Asker:
    """One goal of the action, as long as it lasts.

    The goal stays accepted while it runs and executes at its end: a callback that waits would hold
    up the thread that takes pictures and sends commands.

    Args:
        goal: rclpy's handle.
        kind: the action's type.
    """

    def __init__(self, goal: Any, kind: Any) -> None:
        self._goal, self._kind = goal, kind
        self._ended = Ended(Code.FAULT, "the run was lost")

    def wants_out(self) -> bool:
        """Whether its client has canceled it."""
        return bool(self._goal.is_cancel_requested)

    def goes(self, progress: Any) -> None:
        """How it goes."""
        self._goal.publish_feedback(self._kind.Feedback(**progress._asdict()))

    def ended(self, ended: Ended) -> None:
        """It ended: `result` will be asked for."""
        self._ended = ended
        self._goal.execute()

    def result(self) -> Any:
        """Close the goal, and say why."""
        code, reason = self._ended
        if code == Code.CANCELED and self._goal.is_cancel_requested:
            self._goal.canceled()
        elif code == Code.NONE:
            self._goal.succeed()
        else:
            self._goal.abort()
        return self._kind.Result(
            error_code=int(code), error_msg=reason, termination_reason=code.name.lower()
        )


def serve_action(node: Node, find: Callable[[], Runs | None]) -> Any:
    """The action server `~/run_instruction`; None where its interface package is not built.

    Args:
        node: who serves.
        find: gives the runs of the active session; None while the gate is closed.
    """
    try:
        from leanvla_msgs.action import RunInstruction
    except ImportError:
        return None
    from rclpy.action import ActionServer, CancelResponse

    desk = ActionDesk(find, RunInstruction)
    return ActionServer(
        node,
        RunInstruction,
        "~/run_instruction",
        execute_callback=desk.execute,
        handle_accepted_callback=desk.accepted,
        cancel_callback=lambda goal: CancelResponse.ACCEPT,
    )


class ActionDesk:
    """Callbacks of the action server."""

    def __init__(self, find: Callable[[], Runs | None], kind: Any) -> None:
        self._find, self._kind = find, kind
        self._askers: dict[bytes, Asker] = {}

    def accepted(self, goal: Any) -> None:
        """Begin, or end at once with the reason: a goal that is not accepted could give none."""
        asker = self._askers[bytes(goal.goal_id.uuid)] = Asker(goal, self._kind)
        request, runs = goal.request, self._find()
        if runs is None:
            why = "the policy's node is not active: activate it first"
            asker.ended(Ended(Code.NOT_ACTIVE, why))
            return
        span = request.max_duration
        seconds = span.sec + span.nanosec * 1e-9
        runs.begin(request.instruction, seconds, request.episode_id, asker)

    def execute(self, goal: Any) -> Any:
        """The end of a goal."""
        return self._askers.pop(bytes(goal.goal_id.uuid)).result()
