"""The node's recording: one bag for each time that the gate was open."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from rclpy.serialization import serialize_message

from policy.replay.live import SessionTape
from policy.replay.redact import Redaction
from policy.robot.health import Check, Level

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from rclpy.clock import Clock

    from policy.contract import Contract
    from policy.replay.layout import Fact
    from policy.replay.recorder import Health
    from policy.robot.pairing import Pairing, Stamped
    from policy.robot.session import Question
    from policy.types import Inference, Observation

REDACTIONS = get_args(Redaction)


class Tape:
    """A bag that is written while the gate is open, or nothing at all.

    Every call returns at once: encoding and the disk belong to the recorder's thread.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._tape: SessionTape | None = None
        self._words = ""

    def start(
        self, root: str, contract: Contract, redaction: Redaction, facts: Mapping[str, Fact]
    ) -> Path | None:
        """Begin a bag in a folder of its own; an empty `root` records nothing.

        Raises:
            OSError: when nothing can be written there.
            ValueError: when the redaction is unknown.
        """
        if not root:
            return None
        if redaction not in REDACTIONS:
            raise ValueError(f"redact is {redaction!r}: choose {', '.join(REDACTIONS)}")
        folder = _unused(Path(root).expanduser(), contract.robot)
        folder.parent.mkdir(parents=True, exist_ok=True)
        self._words = ""
        self._tape = SessionTape(
            folder, contract, serialize_message, facts=facts, redaction=redaction
        )
        return folder

    def remember(self, pairing: Pairing) -> None:
        """What came in before the bag began, and may still be part of the first decisions."""
        if self._tape is None:
            return
        slot = pairing.slot
        for i, camera in enumerate(pairing.contract.cameras):
            known = [*([slot.images[i]] if slot else []), pairing.newest.get(camera.view)]
            self._write(camera.topic, known)
        for i, source in enumerate(pairing.contract.state):
            ring = pairing.rings.get(source.topic, ())
            self._write(source.topic, [*([slot.states[i]] if slot else []), *ring])

    def _write(self, topic: str, known: Iterable[Stamped | None]) -> None:
        by_stamp = {seen.stamp_s: seen.message for seen in known if seen is not None}
        for stamp_s in sorted(by_stamp):
            self.message(topic, by_stamp[stamp_s])

    def message(self, topic: str, message: Any) -> None:
        """Anything that came in or went out."""
        if self._tape is not None:
            self._tape.message(topic, type_name(message), message, self._now_ns())

    def words(self, text: str) -> None:
        """What is asked for now; written down when it changes."""
        if self._tape is not None and text != self._words:
            self._words = text
            self._tape.instruction(text, self._now_ns())

    def answered(
        self, question: Question, observation: Observation, inference: Inference, cell: str
    ) -> None:
        """What the policy said, used or not."""
        if self._tape is not None:
            self._tape.answered(question, observation, inference, cell, self._now_ns())

    def checks(self) -> list[Check]:
        """How it is going, for diagnostics; nothing where nothing is recorded."""
        if self._tape is None:
            return []
        health = self._tape.health()
        counts = {
            "bytes_written": str(health.bytes_written),
            "waiting": str(health.waiting),
            "dropped": str(health.dropped),
        }
        text = f"{health.state}: {health.message}"
        if health.state in ("stalled", "degraded"):
            return [Check("recording", Level.ERROR, text, counts)]
        return [Check("recording", Level.WARN if health.dropped else Level.OK, text, counts)]

    def stop(self, reason: str, timeout_s: float) -> str:
        """End the bag; one sentence about it, empty where nothing was recorded."""
        return "" if self._tape is None else self.end(reason, timeout_s).message

    def end(self, reason: str, timeout_s: float) -> Health:
        """End the bag that was begun.

        Raises:
            RuntimeError: when none was.
        """
        if self._tape is None:
            raise RuntimeError("nothing is recorded")
        health = self._tape.close({"outcome": reason}, timeout_s)
        self._tape = None
        return health

    def _now_ns(self) -> int:
        return self._clock.now().nanoseconds


def type_name(message: Any) -> str:
    """`sensor_msgs/msg/Image`, of a message of that type."""
    kind = type(message)
    return f"{kind.__module__.partition('.')[0]}/msg/{kind.__name__}"


def _unused(root: Path, robot: str) -> Path:
    """A folder that is not there yet, named by robot and wall clock, so that they sort."""
    stem = f"{robot}-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}"
    folder, number = root / stem, 1
    while folder.exists():
        folder, number = root / f"{stem}-{number}", number + 1
    return folder
