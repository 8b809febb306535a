"""Recording a live session: what came in, what was decided from what, and what went out."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from policy.contract import CompressedImage
from policy.replay.layout import layout_of
from policy.replay.messages import NS, exact, header_of, raw_image_message
from policy.replay.recorder import Recorder
from policy.replay.redact import redact
from policy.replay.types import decision_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from policy.contract import Contract
    from policy.replay.layout import Fact
    from policy.replay.recorder import Health
    from policy.replay.redact import Redaction
    from policy.replay.types import Decision
    from policy.robot.session import Question
    from policy.types import Inference, Observation

UNDER_WAY = 32  # answers whose memory may still be handed in


class DecisionLog:
    """Numbers decisions, and tells whose memory each of them began with.

    Memory is told apart by identity: a session hands in the very object that an answer left, or
    none after a new epoch.
    """

    def __init__(self) -> None:
        self._number = 0
        self._left: deque[tuple[int, Any]] = deque(maxlen=UNDER_WAY)

    def decision(
        self, question: Question, observation: Observation, inference: Inference, cell: str = ""
    ) -> Decision:
        """The record of one answer."""
        number, self._number = self._number, self._number + 1
        memory = question.memory
        after = next((n for n, left in reversed(self._left) if left is memory), None)
        self._left.append((number, inference.state))
        return decision_of(
            observation,
            inference.chunk,
            inference.timing,
            number=number,
            after=None if memory is None else after,
            cell=cell,
            images=[stamp_ns(seen.message) for seen in question.paired.images],
            states=[stamp_ns(seen.message) for seen in question.paired.states],
        )


class SessionTape:
    """What a node records beside its session; every call returns at once.

    Messages are taken as they came, and encoded on the recorder's thread by the node's own
    middleware, so that the bag holds what was on the wire.

    Args:
        folder: the bag to write.
        contract: the robot.
        serialize: a message to its CDR bytes (`rclpy.serialization.serialize_message`).
        facts: who records: `policy`, `options`, ...
        redaction: what is done to pictures before they are written.
    """

    def __init__(
        self,
        folder: Path,
        contract: Contract,
        serialize: Callable[[Any], bytes],
        *,
        facts: Mapping[str, Fact] | None = None,
        redaction: Redaction = "none",
    ) -> None:
        layout = msgspec.structs.replace(
            layout_of(contract), facts={**(facts or {}), "redaction": redaction}
        )
        self.recorder = Recorder(folder, layout, redaction=redaction)
        self._serialize, self._log = serialize, DecisionLog()
        self._cameras = {camera.topic: camera for camera in contract.cameras}

    def message(self, topic: str, kind: str, message: Any, now_ns: int) -> bool:
        """Anything on a topic: pictures, state, commands, status. Whether it was taken."""
        camera = self._cameras.get(topic)
        if camera is not None and self.recorder.redaction != "none":
            if self.recorder.redaction == "drop" or camera.type == CompressedImage:
                return True  # compressed pictures have no mosaic: they are left out
            return self.recorder.put(
                topic, kind, now_ns, lambda: redacted_message(message), len(message.data)
            )
        size = len(message.data) if camera is not None else 512
        return self.recorder.put(
            topic, kind, now_ns, lambda: exact(self._serialize(message), kind), size
        )

    def instruction(self, text: str, now_ns: int) -> bool:
        """New words, as the session took them."""
        return self.recorder.instruction(text, now_ns)

    def answered(
        self,
        question: Question,
        observation: Observation,
        inference: Inference,
        cell: str,
        now_ns: int,
    ) -> bool:
        """What the policy said to a question, used or not.

        Args:
            question: as the session asked it.
            observation: what `Session.look` made of it.
            inference: the policy's answer.
            cell: who answered: `dense`, or `METHOD @ KEEP`.
            now_ns: the node's clock.
        """
        decision = self._log.decision(question, observation, inference, cell)
        return self.recorder.decision(decision, now_ns)

    def health(self) -> Health:
        """How it is going, for the node's diagnostics."""
        return self.recorder.health()

    def close(self, result: Mapping[str, str] | None = None, timeout_s: float = 10.0) -> Health:
        """End the bag; what is written stays readable where the disk does not answer in time."""
        return self.recorder.close(result, timeout_s)


def redacted_message(message: Any) -> memoryview:
    """A raw picture as a mosaic, in its own encoding."""
    flat = np.frombuffer(message.data, np.uint8).reshape(message.height, message.step)
    channels = message.step // message.width
    pixels = flat[:, : message.width * channels].reshape(message.height, message.width, channels)
    header = message.header
    stamped = header_of(stamp_ns(message), header.frame_id)
    return raw_image_message(redact(pixels, "mosaic"), stamped, message.encoding)


def stamp_ns(message: Any) -> int:
    """The header's stamp, nanoseconds, exactly."""
    stamp = message.header.stamp
    return int(stamp.sec) * NS + int(stamp.nanosec)
