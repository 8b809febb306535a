"""Recording beside control: a bounded queue, a thread of its own, and an honest word about both.

`put` never waits, encodes nothing and touches no disk. When the disk is full or fails, the recorder
says so once, keeps what is written readable, and control goes on. A heartbeat on bytes written
tells a recorder that stands still from one that has nothing to do.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from policy.contract import Image
from policy.replay.bag_writer import BagWriter
from policy.replay.layout import RESULT_RECORD, Layout
from policy.replay.messages import (
    STRING,
    TRAJECTORY,
    decision_message,
    image_message,
    rows_message,
    state_message,
    text_message,
)
from policy.replay.redact import redact

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    import numpy as np
    from jaxtyping import Float, UInt8
    from typing_extensions import Self

    from policy.replay.redact import Redaction
    from policy.replay.types import Decision

State = Literal["recording", "stalled", "degraded", "closed"]

QUEUE_BYTES = 64 << 20
FLUSH_S = 0.5
STALLED_S = 3.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Health:
    """How a recorder is doing.

    Attributes:
        state: `stalled` when something has waited for `STALLED_S` while no byte was written;
            `degraded` when the disk refused, for good.
        message: one sentence.
        bytes_written: size of the file.
        waiting: messages in the queue.
        dropped: messages that were refused since the start.
    """

    state: State
    message: str
    bytes_written: int
    waiting: int
    dropped: int


@dataclass(frozen=True)
class _Item:
    topic: str
    kind: str
    log_ns: int
    encode: Callable[[], bytes | memoryview]
    size: int


class Recorder:
    """Writes one rosbag2 folder (MCAP). A context manager; leaving it closes the bag.

    Args:
        folder: the bag to write; must not exist yet, or be empty.
        layout: what the topics are; stands at the head of the file, so that it replays alone.
        redaction: what is done to pictures before they are written.
        queue_bytes: most that may wait; what does not fit is dropped and counted.
        open_bag: makes the writer; tests put a failing disk here.

    Raises:
        OSError: when the folder cannot be written at all.
    """

    def __init__(
        self,
        folder: Path,
        layout: Layout,
        *,
        redaction: Redaction = "none",
        queue_bytes: int = QUEUE_BYTES,
        open_bag: Callable[[Path, Layout], BagWriter] = BagWriter,
    ) -> None:
        self.folder, self.layout = folder, layout
        self.redaction: Redaction = redaction
        self._bag = open_bag(folder, layout)
        self._queue: deque[_Item] = deque()
        self._limit, self._waiting_bytes, self._dropped = queue_bytes, 0, 0
        self._lock, self._wake = threading.Lock(), threading.Event()
        self._state: State = "recording"
        self._fault = ""
        self._bytes, self._moved_s = self._bag.whole, time.monotonic()
        self._closing = False
        self._unencodable: set[str] = set()
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        """Recording began when it was made."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the bag."""
        self.close()

    # What may be recorded. Arrays must not be changed afterwards.

    def image(self, view: str, image: UInt8[np.ndarray, "h w 3"], stamp_ns: int) -> bool:
        """One picture of a view."""
        topic = next(camera.topic for camera in self.layout.cameras if camera.view == view)
        redaction = self.redaction
        if redaction == "drop":
            return True
        return self.put(
            topic, Image, stamp_ns, lambda: image_message(redact(image, redaction), stamp_ns),
            image.nbytes,
        )  # fmt: skip

    def state(self, values: Float[np.ndarray, " s"], stamp_ns: int) -> bool:
        """Proprioception, in the layout's order."""
        source = self.layout.state[0]
        names = tuple(source.values)
        return self.put(
            source.topic, source.type, stamp_ns, lambda: state_message(names, values, stamp_ns)
        )

    def instruction(self, text: str, stamp_ns: int) -> bool:
        """New words."""
        topic = self.layout.instruction_topic
        return self.put(topic, STRING, stamp_ns, lambda: text_message(text))

    def decision(self, decision: Decision, stamp_ns: int) -> bool:
        """What the policy answered."""
        topic = self.layout.decision_topic
        return self.put(topic, STRING, stamp_ns, lambda: decision_message(decision))

    def rows(self, rows: Float[np.ndarray, "k dof"], stamp_ns: int) -> bool:
        """Action rows as they are executed, the first at `stamp_ns`."""
        names, rate = self.layout.action_names, self.layout.rate_hz
        return self.put(
            self.layout.action_topic,
            TRAJECTORY,
            stamp_ns,
            lambda: rows_message(names, rows, stamp_ns, rate),
        )

    def put(
        self,
        topic: str,
        kind: str,
        log_ns: int,
        encode: Callable[[], bytes | memoryview],
        size: int = 256,
    ) -> bool:
        """Queue one message; `encode` runs on the recorder's thread. Never waits.

        Args:
            topic: its topic.
            kind: its type, a standard one (`sensor_msgs/msg/Image`).
            log_ns: when it happened, nanoseconds.
            encode: gives its CDR bytes.
            size: about how many bytes it holds while it waits.

        Returns:
            Whether it was taken: not when the queue is full, or nothing is recorded any more.
        """
        with self._lock:
            if self._state in ("degraded", "closed") or self._closing:
                self._dropped += 1
                return False
            if self._waiting_bytes + size > self._limit:
                self._dropped += 1
                return False
            if not self._queue:
                self._moved_s = time.monotonic()
            self._queue.append(_Item(topic, kind, log_ns, encode, size))
            self._waiting_bytes += size
        self._wake.set()
        return True

    def health(self) -> Health:
        """How it is going; cheap enough for every tick."""
        with self._lock:
            state, waiting = self._state, len(self._queue)
            quiet_s = time.monotonic() - self._moved_s
            if state == "recording" and self._waiting_bytes and quiet_s > STALLED_S:
                state = "stalled"
        said = {
            "recording": f"{self._bytes:,} bytes in {self.folder}",
            "stalled": f"no byte written for {quiet_s:.0f} s while {waiting} message(s) wait",
            "degraded": self._fault,
            "closed": f"{self.folder} is closed with {self._bytes:,} bytes",
        }
        message = said[state] + (f"; {self._dropped} message(s) dropped" if self._dropped else "")
        return Health(state, message, self._bytes, waiting, self._dropped)

    def close(self, result: Mapping[str, str] | None = None, timeout_s: float = 10.0) -> Health:
        """Write what waits, and end the bag.

        Args:
            result: how it ended, as a metadata record.
            timeout_s: how long to wait for the disk; what is written stays readable after that.
        """
        with self._lock:
            self._closing = True
        self._wake.set()
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            self._degrade(f"the disk did not answer in {timeout_s:g} s; {self.folder} has no index")
        elif self._state == "recording":
            self._end(result)
        return self.health()

    # The recorder's own thread.

    def _run(self) -> None:
        flushed_s = time.monotonic()
        while not (self._closing and not self._queue):
            self._wake.wait(FLUSH_S)
            self._wake.clear()
            try:
                self._drain()
                if time.monotonic() - flushed_s >= FLUSH_S:
                    self._beat(self._bag.flush())
                    flushed_s = time.monotonic()
            except OSError as error:
                self._degrade(f"recording stopped: {error.strerror or error}; control goes on")
                self._keep_whole()
                return

    def _drain(self) -> None:
        while True:
            with self._lock:
                if not self._queue:
                    return
                item = self._queue[0]
            data = self._encoded(item)
            if data is not None:
                self._bag.write(item.topic, item.kind, data, item.log_ns)
            with self._lock:
                self._dropped += data is None
                if self._queue and self._queue[0] is item:  # else the recorder was given up
                    self._queue.popleft()
                    self._waiting_bytes -= item.size
            self._beat(self._bytes + len(data or b""))

    def _encoded(self, item: _Item) -> bytes | memoryview | None:
        try:
            return item.encode()
        # One message that cannot be encoded must not end the recording of all others.
        except Exception:
            if item.topic not in self._unencodable:
                self._unencodable.add(item.topic)
                _log.exception("%s: a message cannot be encoded and is dropped", item.topic)
            return None

    def _beat(self, size: int) -> None:
        with self._lock:
            if size != self._bytes:
                self._bytes, self._moved_s = size, time.monotonic()

    def _end(self, result: Mapping[str, str] | None) -> None:
        try:
            if result:
                self._bag.record(RESULT_RECORD, result)
            self._bag.close()
            self._bytes, self._state = self._bag.path.stat().st_size, "closed"
        except OSError as error:
            self._degrade(f"the bag could not be ended: {error.strerror or error}")
            self._keep_whole()

    def _degrade(self, reason: str) -> None:
        with self._lock:
            if self._state != "degraded":
                self._state, self._fault = "degraded", reason
                _log.error("%s: %s", self.folder, reason)
            self._dropped += len(self._queue)
            self._queue.clear()
            self._waiting_bytes = 0

    def _keep_whole(self) -> None:
        try:
            self._bag.abandon()
            self._bytes = self._bag.whole
        except OSError as error:
            _log.error("%s: could not be trimmed to its last whole chunk: %s", self.folder, error)
