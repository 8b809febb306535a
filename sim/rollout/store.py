"""Finished episodes on disk: one JSON line each, appended, flushed and synced.

The file is the run's memory. A power cut can tear only its last line, and a torn last line is an
episode that never finished.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from sim.rollout.types import EpisodeRecord, RolloutError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from typing_extensions import Self

    from sim.rollout.types import Cell

_DECODER = msgspec.json.Decoder(EpisodeRecord)


class EpisodeStore:
    """The episodes of one run. A context manager; also a read-only mapping by (cell, seed).

    Args:
        path: `episodes.jsonl`; read when it exists, created when not.

    Attributes:
        notice: what was repaired on opening, in one sentence; None when nothing was.

    Raises:
        RolloutError: when a line other than the last is damaged.
    """

    def __init__(self, path: Path) -> None:
        found = read_episodes(path)
        self.notice = found.notice
        self._episodes = {(record.cell, record.seed): record for record in found.records}
        self._file = path.open("ab")
        self._file.truncate(found.good)

    def __enter__(self) -> Self:
        """The file is open already."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        self._file.close()

    def __len__(self) -> int:
        """Finished episodes, all cells together."""
        return len(self._episodes)

    def __iter__(self) -> Iterator[EpisodeRecord]:
        """Episodes in the order in which they finished."""
        return iter(self._episodes.values())

    def __contains__(self, key: tuple[Cell, int]) -> bool:
        """Whether this cell and seed are done."""
        return key in self._episodes

    def get(self, cell: Cell, seed: int) -> EpisodeRecord | None:
        """The finished episode of `cell` on `seed`, if there is one."""
        return self._episodes.get((cell, seed))

    def of(self, cell: Cell) -> list[EpisodeRecord]:
        """The finished episodes of `cell`, by seed."""
        found = (record for record in self if record.cell == cell)
        return sorted(found, key=lambda record: record.seed)

    def append(self, record: EpisodeRecord) -> None:
        """Write one episode; when this returns it survives a power cut.

        Raises:
            RolloutError: when this cell and seed already have one.
        """
        key = (record.cell, record.seed)
        if key in self._episodes:
            raise RolloutError(f"{record.cell}, seed {record.seed} is already recorded")
        self._file.write(msgspec.json.encode(record) + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())
        self._episodes[key] = record


class Found(NamedTuple):
    """What an `episodes.jsonl` holds.

    Attributes:
        records: its episodes, in the order in which they finished.
        good: bytes of whole lines.
        notice: that the last line is torn, in one sentence; None when it is not.
    """

    records: list[EpisodeRecord]
    good: int
    notice: str | None


def read_episodes(path: Path) -> Found:
    """Read all whole lines and change nothing; a file that is not there holds none.

    Raises:
        RolloutError: when a line other than the last is damaged.
    """
    records: list[EpisodeRecord] = []
    good = 0
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    for number, line in enumerate(lines, 1):
        record = _decode(line)
        if record is None and number < len(lines):
            raise RolloutError(
                f"{path} line {number} is damaged: remove the line, or choose another --out"
            )
        if record is None:
            torn = f"{path.name}: dropped a torn last line; that episode runs again"
            return Found(records, good, torn)
        records.append(record)
        good += len(line)
    return Found(records, good, None)


def _decode(line: bytes) -> EpisodeRecord | None:
    if not line.endswith(b"\n"):
        return None
    try:
        return _DECODER.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
