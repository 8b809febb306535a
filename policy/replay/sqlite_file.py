"""Messages of sqlite3 bags, and of bags that rosbag2 compressed, through the `rosbags` library.

A damaged sqlite3 file is read row by row as far as it goes, in the order of recording.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

from policy.replay.storage import RawMessage
from policy.replay.types import DamagedError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from policy.replay.storage import Recording, Records
    from policy.replay.types import Losses


def read(
    recording: Recording, losses: Losses, records: Records, *, recover: bool
) -> Iterator[RawMessage]:
    """Every message in order of time; see `Recording.messages`."""
    if recording.compressed or not recover:
        yield from _healthy(recording)
    else:
        for path in recording.files:
            yield from _rows(recording, path, losses)


def _healthy(recording: Recording) -> Iterator[RawMessage]:
    from rosbags.rosbag2 import Reader, ReaderError

    paths = [recording.path] if recording.metadata is not None else recording.files
    try:
        for path in paths:
            with Reader(path) as reader:
                for connection, log_ns, data in reader.messages():
                    yield RawMessage(connection.topic, connection.msgtype, log_ns, data)
    except DamagedError:
        raise
    # The library passes on errors of sqlite and of the decompressor as they come.
    except (ReaderError, RuntimeError, ValueError, OSError, EOFError) as error:
        raise _damaged(recording.path, error) from None
    except Exception as error:
        if type(error).__module__.partition(".")[0] not in ("apsw", "backports", "compression"):
            raise
        raise _damaged(recording.path, error) from None


def _damaged(path: Path, error: Exception) -> DamagedError:
    said = " ".join(str(error).split()) or type(error).__name__
    return DamagedError(f"{path}: is damaged ({said}); `--recover` reads what is there")


def _rows(recording: Recording, path: Path, losses: Losses) -> Iterator[RawMessage]:
    """Rows by their number until the file makes no sense any more."""
    last_ns = 0
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as file:
            # A file shorter than its header says is refused whole, unless this is on.
            file.execute("PRAGMA writable_schema = ON")
            topics = dict(file.execute("SELECT id, name FROM topics").fetchall())
            types = dict(file.execute("SELECT id, type FROM topics").fetchall())
            query = "SELECT topic_id, timestamp, data FROM messages ORDER BY id"
            for topic, log_ns, data in file.execute(query):
                if topic not in topics:
                    losses.count("unknown_channel")
                    continue
                last_ns = max(last_ns, log_ns)
                yield RawMessage(topics[topic], types[topic], log_ns, data)
    except sqlite3.DatabaseError as error:
        losses.count("cut_files")
        end_ns = recording.end_ns
        lost_s = (end_ns - last_ns) * 1e-9 if end_ns is not None and last_ns else 0.0
        losses.seconds += max(0.0, lost_s)
        known = f"{lost_s:.3f} s are lost" if lost_s else "how much is lost is not known"
        losses.note(f"{path}: is damaged ({error}), {known}")
