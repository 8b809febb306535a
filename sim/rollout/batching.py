"""One policy asked from many threads: whoever waits while a forward pass runs shares the next one.

Nobody waits for a batch to fill, so a lone environment is answered as fast as without batching.
"""

from __future__ import annotations

import threading
from collections import deque
from concurrent.futures import Future
from typing import TYPE_CHECKING, NamedTuple, Protocol, cast

if TYPE_CHECKING:
    from collections.abc import Sequence
    from concurrent.futures import Executor

    from policy.types import Inference, Observation, Policy
    from pruning.history import PrunerState


class BatchError(ValueError):
    """A policy that cannot answer several observations in one forward pass."""


class BatchPolicy(Protocol):
    """A policy that can answer several observations at once."""

    def infer_batch(
        self, observations: Sequence[Observation], states: Sequence[PrunerState]
    ) -> list[Inference]:
        """Answer every observation as `infer` would, with the same kept tokens."""
        ...


class _Ticket(NamedTuple):
    observation: Observation
    state: PrunerState
    answer: Future[Inference]


class Batcher:
    """A policy for many environments at the same rung.

    Args:
        policy: the policy; must have `infer_batch`.
        most: observations of one forward pass, at most.
        runner: runs the forward passes, one at a time.

    Raises:
        BatchError: when the policy has no `infer_batch`.
    """

    def __init__(self, policy: Policy, most: int, runner: Executor) -> None:
        if not hasattr(policy, "infer_batch"):
            raise BatchError(
                f"{type(policy).__name__} has no infer_batch: leave `batch` out for this policy"
            )
        self.policy = policy
        self._batch = cast("BatchPolicy", policy)
        self._most, self._runner = most, runner
        self._waiting: deque[_Ticket] = deque()
        self._lock = threading.Lock()

    def infer(self, observation: Observation, state: PrunerState) -> Inference:
        """Answer one observation, in the company of whatever else is waiting.

        Raises:
            Exception: what the forward pass raised; everybody in it gets the same.
        """
        ticket = _Ticket(observation, state, Future())
        with self._lock:
            self._waiting.append(ticket)
        self._runner.submit(self._answer)  # finds nothing to do when an earlier pass took it
        return ticket.answer.result()

    def _answer(self) -> None:
        with self._lock:
            batch = [self._waiting.popleft() for _ in range(min(self._most, len(self._waiting)))]
        if not batch:
            return
        try:
            answers = self._batch.infer_batch(
                [t.observation for t in batch], [t.state for t in batch]
            )
        except Exception as error:
            for ticket in batch:
                ticket.answer.set_exception(error)
            return
        for ticket, answer in zip(batch, answers, strict=True):
            ticket.answer.set_result(answer)
