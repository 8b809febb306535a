"""What becomes of an attempt at an episode: a result, another try, or an error.

Decided here for every kind of pool, so that it is the same whether a simulator or a whole worker
was lost: once more, then the episode is an error. A machine that was taken away counts for itself.
"""

from __future__ import annotations

import dataclasses
from collections import Counter, deque
from typing import TYPE_CHECKING

from sim.rollout.types import Done, EpisodeRecord, Fatal, RolloutError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sim.rollout.types import Cell, Job, Lost

ATTEMPTS = 2
PREEMPTIONS = 5
ERRORS_IN_A_ROW = 8


class Ledger:
    """The jobs of a run that wait, and the rule for those that come back.

    Args:
        jobs: what is to be run.
        log: where the workers' own output is, for messages.

    Attributes:
        waiting: jobs to hand out, first one first.
    """

    def __init__(self, jobs: Iterable[Job], log: str) -> None:
        self.waiting = deque(jobs)
        self._log, self._errors = log, 0
        self._preempted: Counter[tuple[Cell, int]] = Counter()

    def settle(self, job: Job, message: Done | Lost | Fatal) -> Done | None:
        """The episode that `job` has become; None when it waits for another attempt.

        Raises:
            RolloutError: when a worker says that no retry will help.
        """
        if isinstance(message, Fatal):
            raise RolloutError(message.reason, message.exit_code)
        if isinstance(message, Done):
            return message
        key = job.cell, job.seed
        self._preempted[key] += message.preempted
        preempted = self._preempted[key]
        if job.attempt + 1 - preempted < ATTEMPTS and preempted <= PREEMPTIONS:
            self.waiting.appendleft(dataclasses.replace(job, attempt=job.attempt + 1))
            return None
        return Done(_error_record(job, message.reason))

    def count(self, done: Done) -> None:
        """Call for every episode, in the order in which they end.

        Raises:
            RolloutError: when so many in a row were lost that the simulator itself must be broken.
        """
        self._errors = self._errors + 1 if done.record.outcome == "error" else 0
        if self._errors >= ERRORS_IN_A_ROW:
            raise RolloutError(
                f"{self._errors} episodes in a row were lost, the last with: {done.record.error}; "
                f"see {self._log}, then run `leanvla doctor`",
                exit_code=3,
            )


def _error_record(job: Job, reason: str) -> EpisodeRecord:
    return EpisodeRecord(
        seed=job.seed,
        method=job.cell.method,
        keep=job.cell.keep,
        outcome="error",
        retries=job.attempt,
        error=reason,
    )
