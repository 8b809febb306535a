"""The one thread that runs policies. A daemon: a policy that hangs cannot keep the server alive."""

from __future__ import annotations

import asyncio
import queue
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, TypeVar

from policy.serve.errors import ServeError

if TYPE_CHECKING:
    from collections.abc import Callable

Result = TypeVar("Result")


class PolicyThread:
    """Runs one call at a time, in the order in which they were asked for."""

    def __init__(self) -> None:
        self._calls: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]]] = queue.SimpleQueue()
        self._due: set[asyncio.Future[Any]] = set()
        self._abandoned = False
        threading.Thread(target=self._work, name="policy", daemon=True).start()

    async def run(self, call: Callable[[], Result], limit_s: float) -> Result:
        """The result of a call, or what it raised.

        Args:
            call: what to run.
            limit_s: how long it may take; those that wait before it may take as long each.

        Raises:
            TimeoutError: when that time is over.
            ServeError: when the server ends.
        """
        job: Future[Result] = Future()
        due = asyncio.wrap_future(job)
        self._due.add(due)
        self._calls.put((call, job))
        try:
            return await asyncio.wait_for(due, limit_s * len(self._due))
        except asyncio.TimeoutError:  # another class than TimeoutError before Python 3.11
            raise TimeoutError from None
        except asyncio.CancelledError:
            if self._abandoned:
                raise ServeError("the server ends") from None
            raise
        finally:
            self._due.discard(due)

    def abandon(self) -> None:
        """Wait for nothing any more."""
        self._abandoned = True
        for due in tuple(self._due):
            due.cancel()

    def _work(self) -> None:
        while True:
            call, future = self._calls.get()
            if not future.set_running_or_notify_cancel():
                continue  # whoever asked has given up
            try:
                future.set_result(call())
            except BaseException as error:
                future.set_exception(error)
