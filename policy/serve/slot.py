"""A place for one waiting request; a newer one takes it."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import AsyncIterable


class ClosedSlotError(Exception):
    """The client has gone and nothing waits any more."""


class Taken(NamedTuple):
    """The newest request.

    Attributes:
        superseded: older ones whose place it took, each of which is due an answer.
        since: when it came, on the clock of `time.perf_counter`.
    """

    frame: bytes | str
    superseded: int
    since: float


class Slot:
    """One connection's requests: `fill` puts them in, `take` gets the newest."""

    def __init__(self) -> None:
        self._waiting: Taken | None = None
        self._closed = False
        self._changed = asyncio.Event()

    async def fill(self, frames: AsyncIterable[bytes | str]) -> None:
        """Put in what comes until the client goes."""
        from websockets.exceptions import ConnectionClosed

        try:
            async for frame in frames:
                self.put(frame)
        except ConnectionClosed:
            return
        finally:
            self._closed = True
            self._changed.set()

    def put(self, frame: bytes | str) -> None:
        """A request came."""
        older = self._waiting
        count = older.superseded + 1 if older else 0
        self._waiting = Taken(frame, count, time.perf_counter())
        self._changed.set()

    async def take(self) -> Taken:
        """The newest request; waits for one.

        Raises:
            ClosedSlotError: when none waits and none will come.
        """
        while self._waiting is None:
            if self._closed:
                raise ClosedSlotError
            self._changed.clear()
            await self._changed.wait()
        taken, self._waiting = self._waiting, None
        return taken
