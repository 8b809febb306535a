"""Tests marked `alone` measure time: with several workers, they run while no other test does."""

from __future__ import annotations

import fcntl
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class Turns:
    """Two locks in a folder that the workers of one run share.

    A test holds the room, with others or alone. Who waits for the room holds the door meanwhile, so
    that nobody who comes later begins before one who wants to be alone.
    """

    def __init__(self, folder: Path) -> None:
        self._door = (folder / "door").open("w")
        self._room = (folder / "room").open("w")

    @contextmanager
    def take(self, *, alone: bool) -> Iterator[None]:
        fcntl.flock(self._door, fcntl.LOCK_EX)
        fcntl.flock(self._room, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        fcntl.flock(self._door, fcntl.LOCK_UN)
        try:
            yield
        finally:
            # In words, not by closing: a forked child may hold the file open.
            fcntl.flock(self._room, fcntl.LOCK_UN)
