"""An episode worker: the process of the policy, which owns one simulator process."""

from __future__ import annotations

import contextlib
import traceback
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from sim.rollout.episode import ExpertAgent, PolicyAgent, run_episode
from sim.rollout.factories import make_policy
from sim.rollout.simulator import Simulator, SuiteUnavailableError, describe
from sim.rollout.types import EXPERT, Deadlines, Done, EpisodeLostError, Fatal, Lost, Source

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection

    from policy.replay.redact import Redaction
    from policy.types import Policy
    from sim.rollout.episode import Agent
    from sim.rollout.tape import EpisodeTape
    from sim.rollout.types import Beat, Cell, Job


@dataclass(frozen=True)
class WorkerSpec:
    """What every worker of a run has in common.

    Attributes:
        suite: what to simulate.
        policy: who acts; the name `expert` means the suite's scripted expert.
        execute: control steps executed of each chunk; None leaves it to the policy.
        threads: threads of the policy's process.
        deadlines: how long silence is forgiven.
        log: file that takes the workers' and simulators' own output; None means stderr.
        record: folder that takes one recording per episode; None records none.
        redact: what is done to recorded pictures: `none`, `mosaic` or `drop`.
        batch: observations of several environments that may share a forward pass; above 1 the pool
            must share policies between its workers.
        truth: record what every query kept of what mattered.
    """

    suite: Source
    policy: Source
    execute: int | None = None
    threads: int = 1
    deadlines: Deadlines = field(default_factory=Deadlines)
    log: str | None = None
    record: str | None = None
    redact: Redaction = "none"
    batch: int = 1
    truth: bool = False


class EpisodeWorker:
    """Runs attempts one after the other: an agent per cell, one simulator for all.

    Args:
        spec: what every worker of the run has in common.
        find_policy: gives the policy of a cell; None loads it into this process.
    """

    def __init__(
        self, spec: WorkerSpec, find_policy: Callable[[Cell], Policy] | None = None
    ) -> None:
        self._spec, self._find_policy = spec, find_policy or partial(_load, spec)
        self._simulator = Simulator(spec.suite, spec.deadlines, spec.log)
        self._agents: dict[Cell, Agent] = {}

    def attempt(self, job: Job, beat: Callable[[Beat], None]) -> Done | Lost | Fatal:
        """Run one attempt; the simulator starts first and loads while the policy loads.

        Args:
            job: the episode.
            beat: told after every query.

        Raises:
            ConnectionError: when nobody listens to `beat` any more.
        """
        self._simulator.start()
        where = f"policy {self._spec.policy.name!r} at {job.cell}"
        try:
            agent = self._agent(job.cell)
            where += f", seed {job.seed}"
            with _tape(job, self._spec, self._simulator) as tape:
                return Done(*run_episode(job, agent, self._simulator, beat, tape))
        except EpisodeLostError as error:
            return Lost(str(error), error.preempted)
        except SuiteUnavailableError as error:
            return Fatal(str(error), exit_code=3)
        except ConnectionError:
            raise  # the supervisor is gone; nobody is left to tell
        except Exception as error:  # the policy's own: the next episode would end the same way
            traceback.print_exc()
            return Fatal(f"{where}: {describe(error)}", _exit_code(error))

    def close(self) -> None:
        """End the simulator."""
        self._simulator.close()

    def _agent(self, cell: Cell) -> Agent:
        if cell not in self._agents:
            self._agents[cell] = self._make_agent(cell)
        return self._agents[cell]

    def _make_agent(self, cell: Cell) -> Agent:
        spec = self._spec
        if spec.policy.name == EXPERT:
            return ExpertAgent()
        watch = spec.record is not None
        return PolicyAgent(self._find_policy(cell), spec.execute, watch=watch, truth=spec.truth)


def serve_episodes(connection: Connection, spec: WorkerSpec) -> None:
    """Body of the worker process: run jobs until the pipe closes."""
    worker = EpisodeWorker(spec)
    try:
        while True:
            connection.send(worker.attempt(connection.recv(), connection.send))
    finally:
        worker.close()


def _load(spec: WorkerSpec, cell: Cell) -> Policy:
    return make_policy(spec.policy, cell, spec.threads)


def _tape(
    job: Job, spec: WorkerSpec, simulator: Simulator
) -> contextlib.AbstractContextManager[EpisodeTape | None]:
    """The recording of this attempt; filming runs the same episode again and needs none."""
    if spec.record is None or job.film is not None:
        return contextlib.nullcontext()
    from sim.rollout.tape import EpisodeTape

    return EpisodeTape(Path(spec.record), job, simulator.spec, spec.policy, spec.redact)


def _exit_code(error: Exception) -> int:
    """2 for bad input, 1 for anything else, unless the error says so itself."""
    return getattr(error, "exit_code", 2 if isinstance(error, ValueError) else 1)
