"""From a live question and its answer to the decision that a recording keeps."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from policy.replay.messages import NS
from policy.replay.types import Decision

if TYPE_CHECKING:
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
        self, question: Question, observation: Observation, inference: Inference
    ) -> Decision:
        """The record of one answer."""
        number, self._number = self._number, self._number + 1
        chunk, timing, memory = inference.chunk, inference.timing, question.memory
        after = next((n for n, left in reversed(self._left) if left is memory), None)
        self._left.append((number, inference.state))
        return Decision(
            stamp_s=observation.stamp_s,
            episode=observation.episode,
            number=number,
            after=None if memory is None else after,
            instruction=observation.instruction,
            actions=chunk.actions.tolist(),
            kept=[kept.tolist() for kept in chunk.kept],
            query_ms=timing.query_ms,
            phase_ms=dict(timing.phase_ms),
            visual_tokens=timing.visual_tokens,
            kept_tokens=timing.kept_tokens,
            dense_warmup=timing.dense_warmup,
            images=[stamp_ns(seen.message) for seen in question.paired.images],
            states=[stamp_ns(seen.message) for seen in question.paired.states],
        )


def stamp_ns(message: Any) -> int:
    """The header's stamp, nanoseconds, exactly."""
    stamp = message.header.stamp
    return int(stamp.sec) * NS + int(stamp.nanosec)
