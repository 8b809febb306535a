"""Messages of MCAP files, chunk by chunk: what is whole is read, what is not is counted.

The index at the end of a file is not needed, so a file whose writer was killed reads the same.
"""

from __future__ import annotations

import struct
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Any, NamedTuple

from policy.replay.storage import RawMessage
from policy.replay.types import DamagedError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from policy.replay.storage import Recording, Records
    from policy.replay.types import Losses

REORDER_NS = 2_000_000_000  # messages are sorted within so much; later ones keep their place
_MAX_RECORD_BYTES = 1 << 30


class _Channel(NamedTuple):
    topic: str
    type: str
    encoding: str


def read(
    recording: Recording, losses: Losses, records: Records, *, recover: bool
) -> Iterator[RawMessage]:
    """Every message in order of time; see `Recording.messages`."""
    last_ns = 0
    for file in recording.files:
        for message in _sorted(_File(file, losses, records, recover).messages(), losses):
            last_ns = max(last_ns, message.log_ns)
            yield message
    end_ns = recording.end_ns
    if end_ns is not None and last_ns and end_ns > last_ns and losses.counts.get("cut_files"):
        losses.seconds = max(losses.seconds, (end_ns - last_ns) * 1e-9)


class _File:
    """One file, walked through once."""

    def __init__(self, path: Path, losses: Losses, records: Records, recover: bool) -> None:
        self.path, self.losses, self.records, self.recover = path, losses, records, recover
        self._channels: dict[int, _Channel] = {}
        self._schemas: dict[int, str] = {}
        self._last_ns = 0

    def messages(self) -> Iterator[RawMessage]:
        """Messages in the order of the file."""
        from mcap.exceptions import McapError
        from mcap.records import Chunk
        from mcap.stream_reader import StreamReader

        with self.path.open("rb") as file:
            reader = StreamReader(file, emit_chunks=True, record_size_limit=_MAX_RECORD_BYTES)
            whole = 0
            try:
                for record in reader.records:
                    if isinstance(record, Chunk):
                        yield from self._chunk(record)
                    else:
                        yield from self._record(record)
                    whole = file.tell()
            except DamagedError:
                raise
            except (McapError, struct.error, EOFError, ValueError, UnicodeDecodeError) as error:
                self._cut(whole, error)

    def _chunk(self, chunk: Any) -> Iterator[RawMessage]:
        records = self._open(chunk)
        for record in records:
            yield from self._record(record)

    def _open(self, chunk: Any) -> list[Any]:
        from mcap.stream_reader import breakup_chunk

        try:
            return breakup_chunk(chunk, validate_crc=True)
        # Decompressors raise errors of their own; whatever it is, this chunk is gone.
        except Exception as error:
            seconds = max(0.0, (chunk.message_end_time - chunk.message_start_time) * 1e-9)
            what = (
                f"{self.path}: the chunk from {chunk.message_start_time * 1e-9:.3f} s on "
                f"({seconds:.3f} s) is corrupt ({' '.join(str(error).split())[:120]})"
            )
            if not self.recover:
                raise DamagedError(f"{what}; `--recover` goes on without it") from None
            self.losses.count("corrupt_chunks")
            self.losses.seconds += seconds
            self.losses.note(what)
            return []

    def _record(self, record: Any) -> Iterator[RawMessage]:
        from mcap.records import Channel, Message, Metadata, Schema

        if isinstance(record, Message):
            channel = self._channels.get(record.channel_id)
            if channel is None:  # described in a chunk that is gone
                self.losses.count("unknown_channel")
                return
            self._last_ns = max(self._last_ns, record.log_time)
            yield RawMessage(channel.topic, channel.type, record.log_time, record.data)
        elif isinstance(record, Schema):
            self._schemas[record.id] = record.name
        elif isinstance(record, Channel):
            kind = self._schemas.get(record.schema_id, "")
            if record.message_encoding != "cdr":
                kind = f"{record.message_encoding}:{kind}"
            self._channels[record.id] = _Channel(record.topic, kind, record.message_encoding)
        elif isinstance(record, Metadata):
            self.records.found[record.name] = dict(record.metadata)

    def _cut(self, whole: int, error: Exception) -> None:
        """The file ends, or stops making sense, after `whole` bytes."""
        size = self.path.stat().st_size
        lost_s = self._lost_after(whole)
        what = (
            f"{self.path}: is cut after {whole:,} of {size:,} bytes, at least {lost_s:.3f} s "
            "are lost"
            if size > whole
            else f"{self.path}: was never closed; it ends with the last whole chunk"
        )
        if not self.recover:
            raise DamagedError(f"{what}; `--recover` reads what is there") from error
        self.losses.count("cut_files")
        self.losses.seconds += lost_s
        self.losses.note(what)

    def _lost_after(self, offset: int) -> float:
        """Seconds that the torn record at `offset` held, when it is a chunk whose head is there."""
        with self.path.open("rb") as file:
            file.seek(offset)
            head = file.read(9 + 16)
        if len(head) < 25 or head[0] != 0x06:
            return 0.0
        begin, end = struct.unpack("<QQ", head[9:25])
        return max(0.0, (end - max(begin, self._last_ns)) * 1e-9) if end < 1 << 63 else 0.0


def _sorted(messages: Iterator[RawMessage], losses: Losses) -> Iterator[RawMessage]:
    """By time of writing, within a window; what comes later still is counted."""
    waiting: list[tuple[int, int, RawMessage]] = []
    newest_ns = given_ns = 0
    for number, message in enumerate(messages):
        if message.log_ns < given_ns:
            losses.count("out_of_order")
        heappush(waiting, (message.log_ns, number, message))
        newest_ns = max(newest_ns, message.log_ns)
        while waiting and waiting[0][0] <= newest_ns - REORDER_NS:
            given_ns = max(given_ns, waiting[0][0])
            yield heappop(waiting)[2]
    while waiting:
        yield heappop(waiting)[2]
