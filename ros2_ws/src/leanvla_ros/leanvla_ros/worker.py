"""Inference on a thread of its own, always on the newest complete observation."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from policy.robot.session import Question


class Desk(Protocol):
    """Where questions come from and answers go to. Each call takes the session's lock itself."""

    def next_question(self) -> Question | None:
        """What to ask now, if anything."""
        ...

    def work(self, question: Question) -> None:
        """Decode, infer, and hand in the answer."""
        ...


class Worker:
    """Asks whenever it is nudged. A nudge during a query is remembered, not queued.

    Args:
        desk: gives questions and takes answers.
        crashed: told when the desk itself raised.
    """

    def __init__(self, desk: Desk, crashed: Callable[[Exception], None]) -> None:
        self._desk, self._crashed = desk, crashed
        self._nudged = threading.Event()
        self._leaving = False
        self._thread = threading.Thread(target=self._run, name="inference", daemon=True)
        self._thread.start()

    def nudge(self) -> None:
        """There may be something to ask."""
        self._nudged.set()

    def end(self, grace_s: float) -> bool:
        """Stop; whether the thread ended. One that hangs in native code is left behind."""
        self._leaving = True
        self._nudged.set()
        self._thread.join(grace_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while True:
            self._nudged.wait()
            self._nudged.clear()
            if self._leaving:
                return
            try:
                question = self._desk.next_question()
                if question is not None:
                    self._desk.work(question)
            except (
                Exception
            ) as error:  # reported, never swallowed: the node goes to its error state
                self._crashed(error)
                return
