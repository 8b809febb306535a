"""The supervisor of episode workers: hands out jobs, watches for life, ends what is silent."""

from __future__ import annotations

import time
from contextlib import suppress
from multiprocessing.connection import wait
from typing import TYPE_CHECKING

from sim.rollout.ledger import Ledger
from sim.rollout.process import Child
from sim.rollout.types import Beat, Lost
from sim.rollout.worker import serve_episodes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from typing_extensions import Self

    from sim.rollout.types import Done, Fatal, Job
    from sim.rollout.worker import WorkerSpec

GRACE_S = 2.0


class Pool:
    """Some episode workers. A context manager: leaving it ends every process, whatever happened.

    Args:
        spec: what the workers have in common.
        workers: how many; about one per core.
        listen: told of every query that is answered.
    """

    def __init__(
        self, spec: WorkerSpec, workers: int, listen: Callable[[Beat], None] = lambda beat: None
    ) -> None:
        self._spec, self._listen = spec, listen
        self._workers = [_Worker(spec) for _ in range(workers)]

    def __enter__(self) -> Self:
        """Nothing to do: what needs ending begins later."""
        return self

    def __exit__(self, *_: object) -> None:
        """End every process."""
        for worker in self._workers:
            worker.hang_up()
        deadline = time.monotonic() + GRACE_S
        for worker in self._workers:
            worker.close(max(0.0, deadline - time.monotonic()))

    def run(self, jobs: Iterable[Job]) -> Iterator[Done]:
        """Run every job and give each result as it comes, in no particular order.

        Raises:
            RolloutError: when a worker says that no retry will help, or when so many episodes in a
                row were lost that the simulator itself must be broken.
        """
        ledger = Ledger(jobs, self._spec.log or "stderr")
        while ledger.waiting or any(worker.job for worker in self._workers):
            for worker in self._workers:
                if worker.job is None and ledger.waiting:
                    worker.give(ledger.waiting.popleft())
            for worker in self._hear():
                done = self._settle(worker, ledger)
                if done is not None:
                    yield done
                    ledger.count(done)

    def _hear(self) -> list[_Worker]:
        """Wait until some worker spoke or some deadline passed."""
        busy = [worker for worker in self._workers if worker.job]
        patience = min(worker.deadline for worker in busy) - time.monotonic()
        spoke = wait([worker.child.connection for worker in busy], timeout=max(0.0, patience))
        now = time.monotonic()
        return [w for w in busy if w.child.connection in spoke or w.deadline <= now]

    def _settle(self, worker: _Worker, ledger: Ledger) -> Done | None:
        message = worker.listen()
        if isinstance(message, Beat):
            self._listen(message)
            return None
        return ledger.settle(worker.release(), message)


class _Worker:
    """One worker process, restarted when it must be."""

    def __init__(self, spec: WorkerSpec) -> None:
        self.job: Job | None = None
        self.deadline = 0.0
        self._child: Child | None = None
        self._spec = spec

    @property
    def child(self) -> Child:
        if self._child is None:
            spec = self._spec
            self._child = Child(serve_episodes, spec, threads=spec.threads, log=spec.log)
        return self._child

    def give(self, job: Job) -> None:
        self.job = job
        with suppress(ConnectionError):  # it died while idle; listening tells, and we try again
            self.child.connection.send(job)
        self._touch()

    def listen(self) -> Beat | Done | Lost | Fatal:
        child = self.child
        try:
            if not child.connection.poll(0):
                self.close()
                return Lost(f"worker gave no sign of life in {self._spec.deadlines.silence:g} s")
            message = child.connection.recv()
        except (EOFError, ConnectionError):
            self._child = None
            return Lost(f"worker {child.end(grace_s=1.0)}")
        self._touch()
        return message

    def release(self) -> Job:
        """Take the job back; only a busy worker has one."""
        job, self.job = self.job, None
        if job is None:
            raise RuntimeError("an idle worker has no job to give back")
        return job

    def hang_up(self) -> None:
        """Tell the worker to leave by itself, and to take its simulator along."""
        if self._child is not None:
            self._child.connection.close()

    def close(self, grace_s: float = 0.0) -> None:
        if self._child is not None:
            self._child.end(grace_s)
            self._child = None

    def _touch(self) -> None:
        self.deadline = time.monotonic() + self._spec.deadlines.silence
