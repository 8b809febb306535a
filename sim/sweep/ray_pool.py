"""A pool of episode workers on a Ray cluster; runs jobs as `sim.rollout.pool.Pool` does.

The driver hands one job to every worker that is free and keeps the others itself, so a cluster that
shrinks has nothing queued on it, and one that grows takes part. Machines that are lost cost the
attempt that ran on them: it is tried elsewhere, and only one answer per episode is ever taken.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import ray
from ray.exceptions import GetTimeoutError, RayTaskError

from sim.rollout.ledger import Ledger
from sim.rollout.types import Beat, Done, Lost, RolloutError
from sim.sweep.identity import differences, identity_of
from sim.sweep.ray_actors import LOST, EpisodeActor, PolicyActor, first_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from typing_extensions import Self

    from sim.rollout.types import Job
    from sim.rollout.worker import WorkerSpec
    from sim.sweep.ray_actors import Standing

PULSE_S = 10.0
REACH_S = 10.0
STARTS_PER_WORKER = 3
POLICY_RETRIES = 3


class RayOptions(NamedTuple):
    """Where to run.

    Attributes:
        address: `auto`, `local`, or a cluster's address.
        workers: environments; 0 for as many as the cluster has processors left.
        gpus: GPUs of each process that holds a policy.
        policies: shared policy processes, for a batched policy.
    """

    address: str
    workers: int = 0
    gpus: float = 0.0
    policies: int = 1


class RayCluster:
    """The connection to a cluster. A context manager.

    Args:
        options: where to run.

    Raises:
        RolloutError: on entering, when there is no cluster at the address.
    """

    def __init__(self, options: RayOptions) -> None:
        self._options, self._ours = options, False

    def __enter__(self) -> Self:
        """Connect, or start a cluster of this process' own; a connection that stands is used."""
        if ray.is_initialized():
            return self
        address = self._options.address
        more: dict[str, Any] = {}
        if address == "local":
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
            cpus = self._options.workers or os.cpu_count() or 1
            self._options = self._options._replace(workers=cpus)
            more = {"num_cpus": cpus + self._options.policies, "include_dashboard": False}
            more["_node_ip_address"] = "127.0.0.1"
        try:
            _check_reachable(address)
            ray.init(address=address, log_to_driver=False, logging_level=logging.WARNING, **more)
        except (OSError, ValueError, RuntimeError) as error:
            raise RolloutError(
                f"no Ray cluster answers at {address!r} ({first_line(error)}): start one with "
                "`ray start --head`, or use --ray local",
                exit_code=3,
            ) from None
        self._ours = True
        return self

    def __exit__(self, *_: object) -> None:
        """Disconnect; a cluster of our own ends."""
        if self._ours:
            ray.shutdown()

    def describe(self) -> str:
        """Nodes and resources in words."""
        found, nodes = ray.cluster_resources(), sum(node["Alive"] for node in ray.nodes())
        return f"{nodes} node(s), {found.get('CPU', 0):g} CPUs, {found.get('GPU', 0):g} GPUs"

    def pool(self, spec: WorkerSpec, swap: bool, listen: Callable[[Beat], None]) -> RayPool:
        """The pool of one run."""
        return RayPool(spec, self._options, swap=swap, listen=listen)


class RayPool:
    """Some environments on the cluster. A context manager: leaving it ends every process.

    Args:
        spec: what the workers have in common; what they print goes to Ray's own logs.
        options: where to run.
        swap: whether instructions are swapped, for the identity alone.
        listen: told of the queries of every episode that ended.
    """

    def __init__(
        self,
        spec: WorkerSpec,
        options: RayOptions,
        *,
        swap: bool = False,
        listen: Callable[[Beat], None] = lambda beat: None,
    ) -> None:
        self._spec, self._options, self._swap, self._listen = spec, options, swap, listen
        self._identity = identity_of(spec, swap=swap)
        self._count = options.workers or self._most()
        self._slots: list[_Slot] = []
        self._policies: list[Any] = []
        self._failed_starts, self._pulse = 0, time.monotonic()

    def __enter__(self) -> Self:
        """Ask for the shared policies, when there are any."""
        if self._spec.batch > 1:
            place = {"num_cpus": 1, "num_gpus": self._options.gpus, "max_restarts": -1}
            place |= {"max_concurrency": self._count + 2, "max_task_retries": POLICY_RETRIES}
            kind = ray.remote(PolicyActor).options(**place)
            count = range(self._options.policies)
            self._policies = [kind.remote(self._spec, self._swap) for _ in count]
            for policy in self._policies:
                self._check(self._first_word(policy))
        return self

    def __exit__(self, *_: object) -> None:
        """End every process."""
        for actor in (*(slot.actor for slot in self._slots), *self._policies):
            with contextlib.suppress(Exception):  # whatever is gone already needs no end
                ray.kill(actor)

    def run(self, jobs: Iterable[Job]) -> Iterator[Done]:
        """Run every job and give each result as it comes, in no particular order.

        Raises:
            RolloutError: when a worker says that no retry will help, when a node has other code,
                weights or assets, when nothing can be placed, or when too many episodes were lost.
        """
        ledger = Ledger(jobs, "the logs of Ray")
        self._grow(min(self._count, len(ledger.waiting)))
        while ledger.waiting or any(slot.job for slot in self._slots):
            for slot in self._slots:
                if slot.idle and ledger.waiting:
                    slot.give(ledger.waiting.popleft())
            for slot in self._hear():
                done = self._settle(slot, ledger)
                if done is None:
                    continue
                for query_ms in done.record.query_ms:
                    self._listen(Beat(done.record.cell, query_ms))
                yield done
                ledger.count(done)

    def _first_word(self, policy: Any) -> Standing:
        """What a shared policy says once it stands; it must find a place before anything runs."""
        try:
            return _answer(policy.stand.remote(), self._spec.deadlines.start)
        except (GetTimeoutError, *LOST) as error:
            raise RolloutError(
                f"a shared policy found no place on the cluster ({first_line(error)}): it needs 1 "
                f"CPU and {self._options.gpus:g} GPUs",
                exit_code=3,
            ) from None

    def _grow(self, count: int) -> None:
        while len(self._slots) < count:
            policy = (
                self._policies[len(self._slots) % len(self._policies)] if self._policies else None
            )
            gpus = 0.0 if self._policies else self._options.gpus
            kind = ray.remote(EpisodeActor).options(
                num_cpus=1, num_gpus=gpus, max_concurrency=2, max_restarts=0
            )
            self._slots.append(_Slot(kind, (self._spec, self._swap, policy)))

    def _most(self) -> int:
        """Environments that the cluster holds now."""
        found, gpus = ray.cluster_resources(), self._options.gpus
        shared = self._spec.batch > 1
        most = int(found.get("CPU", 0)) - (self._options.policies if shared else 0)
        if gpus and not shared:
            most = min(most, int(found.get("GPU", 0) / gpus))
        return max(1, most)

    def _hear(self) -> list[_Slot]:
        """Wait until some worker answered, or for a while."""
        refs = {slot.ref: slot for slot in self._slots if slot.ref is not None}
        some, _ = ray.wait(list(refs), num_returns=1, timeout=PULSE_S)
        if time.monotonic() - self._pulse > PULSE_S:
            self._pulse = time.monotonic()
            self._watch()
        if not some:
            return []
        found, _ = ray.wait(list(refs), num_returns=len(refs), timeout=0)
        return [refs[ref] for ref in found]

    def _settle(self, slot: _Slot, ledger: Ledger) -> Done | None:
        job = slot.job
        try:
            answer = _answer(slot.ref)
        except LOST as error:
            why = slot.silent or f"worker was lost: {first_line(error)}"
            preempted = not slot.silent
            slot.restart()
            if job is None:
                self._count_start(why)
                return None
            return ledger.settle(job, Lost(why, preempted))
        slot.rest()
        if job is None:
            self._failed_starts = 0
            self._check(answer)
            return None
        return ledger.settle(job, answer)

    def _check(self, standing: Standing) -> None:
        """Refuse a node whose code, packages, weights or assets are not the driver's."""
        here = {name: self._identity[name] for name in standing.identity}
        different = differences(here, standing.identity)
        if different:
            raise RolloutError(
                f"node {standing.node} differs from this machine (here and there: "
                f"{'; '.join(different)}): install the same on every node",
                exit_code=3,
            )

    def _count_start(self, why: str) -> None:
        self._failed_starts += 1
        if self._failed_starts > STARTS_PER_WORKER * len(self._slots):
            raise RolloutError(
                f"{self._failed_starts} workers in a row were lost as they started, the last with: "
                f"{why}; see the logs of Ray",
                exit_code=3,
            )

    def _watch(self) -> None:
        """End workers that are silent, and give up when no worker finds a place."""
        now, deadlines = time.monotonic(), self._spec.deadlines
        for slot in self._slots:
            if slot.job is not None and now - slot.since > deadlines.silence:
                slot.listen(deadlines.silence, deadlines.request)
        if all(not slot.stands and now - slot.since > deadlines.start for slot in self._slots):
            free = ", ".join(f"{n:g} {name}" for name, n in _free().items()) or "nothing"
            raise RolloutError(
                f"no worker found a place in {deadlines.start:g} s: each needs 1 CPU and "
                f"{self._options.gpus:g} GPUs, the cluster has free: {free}",
                exit_code=3,
            )


class _Slot:
    """One environment's place: its actor, and what it is doing."""

    def __init__(self, kind: Any, args: tuple[Any, ...]) -> None:
        self._kind, self._args = kind, args
        self.actor: Any = None
        self.job: Job | None = None
        self.ref: Any = None
        self.since, self.stands, self.silent = 0.0, False, ""
        self._asked: tuple[Any, float] | None = None
        self._begin()

    @property
    def idle(self) -> bool:
        return self.ref is None

    def give(self, job: Job) -> None:
        self.job, self.ref = job, self.actor.run.remote(job)
        self.since, self.silent = time.monotonic(), ""

    def rest(self) -> None:
        """It answered."""
        self.job, self.ref, self.stands, self._asked = None, None, True, None

    def restart(self) -> None:
        """Another actor in its place; the old one, should it live, must not work on."""
        with contextlib.suppress(Exception):
            ray.kill(self.actor)
        self._begin()

    def listen(self, silence_s: float, patience_s: float) -> None:
        """End the actor when it gave no sign of life; its job then comes back as lost."""
        if self._asked is None:
            self._asked = self.actor.quiet_s.remote(), time.monotonic()
            return
        ref, asked = self._asked
        answered, _ = ray.wait([ref], timeout=0)
        if not answered and time.monotonic() - asked < patience_s:
            return
        self._asked = None
        with contextlib.suppress(*LOST):
            if not answered or ray.get(ref) > silence_s:
                self.silent = f"worker gave no sign of life in {silence_s:g} s"
                ray.kill(self.actor)

    def _begin(self) -> None:
        self.actor = self._kind.remote(*self._args)
        self.job, self.ref = None, self.actor.stand.remote()
        self.since, self.stands, self.silent = time.monotonic(), False, ""
        self._asked = None


def _check_reachable(address: str) -> None:
    """Ask at the door: Ray itself would knock for minutes."""
    host, colon, port = address.rpartition(":")
    if address.startswith("ray://"):
        raise ValueError("ray:// is Ray's client: give HOST:6379 on a machine of the cluster")
    if colon and port.isdecimal():
        socket.create_connection((host, int(port)), timeout=REACH_S).close()


def _answer(ref: Any, seconds: float | None = None) -> Any:
    try:
        return ray.get(ref, timeout=seconds)
    except RayTaskError as error:
        raise RolloutError(f"a worker on the cluster failed: {error.cause}", exit_code=3) from None


def _free() -> Mapping[str, float]:
    found = ray.available_resources()
    return {name: found[name] for name in ("CPU", "GPU") if name in found}
