"""One rosbag2 folder, written chunk by chunk: readable up to the last whole chunk at any time."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import msgspec
import yaml

from policy.replay.layout import LAYOUT_RECORD, Layout
from policy.replay.messages import definition

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

BAG_VERSION = 5  # of metadata.yaml: what Humble reads, and so does everything since
CHUNK_BYTES = 1 << 20


class BagWriter:
    """Writes messages into `folder/NAME_0.mcap`, and `metadata.yaml` when it is closed.

    Not for several threads; every method may raise `OSError`.

    Args:
        folder: the bag; must not exist, or be empty.
        layout: what the topics are; stands at the head of the file.
    """

    def __init__(self, folder: Path, layout: Layout | None = None) -> None:
        from mcap.writer import CompressionType, IndexType, Writer

        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.path = folder, folder / f"{folder.name}_0.mcap"
        self._file = self.path.open("xb")
        # Pictures do not shrink under zstd and cost the robot's processor.
        self._writer = Writer(
            self._file,
            chunk_size=CHUNK_BYTES,
            compression=CompressionType.NONE,
            index_types=IndexType.ALL,
        )
        self._writer.start(profile="ros2", library="leanvla")
        self._channels: dict[str, int] = {}
        self._topics: dict[str, list[Any]] = {}
        self._begin_ns, self._end_ns = 0, 0
        self.whole = 0  # where the file may be cut without tearing anything
        if layout is not None:
            self.record(LAYOUT_RECORD, {"json": msgspec.json.encode(layout).decode()})
        self.flush()

    def write(self, topic: str, kind: str, data: bytes | memoryview, log_ns: int) -> None:
        """Add one encoded message."""
        channel = self._channels.get(topic)
        if channel is None:
            channel = self._register(topic, kind)
        self._writer.add_message(channel, log_ns, bytes(data), log_ns)
        self._topics[topic][1] += 1
        self._begin_ns = log_ns if not self._begin_ns else min(self._begin_ns, log_ns)
        self._end_ns = max(self._end_ns, log_ns)
        if self._file.tell() != self.whole:  # the writer has ended a chunk by itself
            self._file.flush()
            self.whole = self._file.tell()

    def record(self, name: str, values: Mapping[str, str]) -> None:
        """Add a named metadata record."""
        self._writer.flush()
        self._writer.add_metadata(name, dict(values))

    def flush(self) -> int:
        """End the chunk in progress and hand everything to the system; the size of the file."""
        self._writer.flush()
        self._file.flush()
        self.whole = self._file.tell()
        return self.whole

    def close(self) -> None:
        """Write the index and `metadata.yaml`."""
        self.flush()
        self._writer.finish()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._write_metadata()

    def abandon(self) -> None:
        """Leave the file as it was after the last flush: whole chunks and nothing torn."""
        self._file.raw.close()  # what is still buffered must not follow
        handle = os.open(self.path, os.O_WRONLY)
        try:
            os.ftruncate(handle, self.whole)
        finally:
            os.close(handle)

    def _register(self, topic: str, kind: str) -> int:
        text, digest = definition(kind)
        schema = self._writer.register_schema(kind, "ros2msg", text.encode())
        metadata = {"offered_qos_profiles": "", "topic_type_hash": digest}
        channel = self._writer.register_channel(topic, "cdr", schema, metadata)
        self._channels[topic], self._topics[topic] = channel, [kind, 0]
        return channel

    def _write_metadata(self) -> None:
        duration_ns = self._end_ns - self._begin_ns
        count = sum(count for _, count in self._topics.values())
        span = {
            "starting_time": {"nanoseconds_since_epoch": self._begin_ns},
            "duration": {"nanoseconds": duration_ns},
            "message_count": count,
        }
        topics = [
            {
                "topic_metadata": {
                    "name": topic,
                    "type": kind,
                    "serialization_format": "cdr",
                    "offered_qos_profiles": "",
                },
                "message_count": count,
            }
            for topic, (kind, count) in self._topics.items()
        ]
        information = {
            "version": BAG_VERSION,
            "storage_identifier": "mcap",
            **span,
            "topics_with_message_count": topics,
            "compression_format": "",
            "compression_mode": "",
            "relative_file_paths": [self.path.name],
            "files": [{"path": self.path.name, **span}],
        }
        text = yaml.safe_dump({"rosbag2_bagfile_information": information}, sort_keys=False)
        part = self.folder / ".metadata.yaml.part"
        part.write_text(text, encoding="utf-8")
        os.replace(part, self.folder / "metadata.yaml")
