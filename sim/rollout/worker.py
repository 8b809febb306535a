"""An episode worker: the process of the policy, which owns one simulator process."""

from __future__ import annotations

import contextlib
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from sim.rollout.episode import ExpertAgent, PolicyAgent, run_episode
from sim.rollout.factories import make_policy
from sim.rollout.simulator import Simulator, SimulatorLostError, SuiteUnavailableError, describe
from sim.rollout.types import EXPERT, Cell, Deadlines, Done, Fatal, Job, Lost, Source

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from policy.replay.redact import Redaction
    from sim.rollout.episode import Agent
    from sim.rollout.tape import EpisodeTape


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
    truth: bool = False


def serve_episodes(connection: Connection, spec: WorkerSpec) -> None:
    """Body of the worker process: run jobs until the pipe closes.

    The simulator starts first and loads while the policy loads.
    """
    simulator = Simulator(spec.suite, spec.deadlines, spec.log)
    agents: dict[Cell, Agent] = {}
    try:
        while True:
            job = connection.recv()
            simulator.start()
            connection.send(_attempt(job, spec, agents, simulator, connection))
    finally:
        simulator.close()


def _attempt(
    job: Job,
    spec: WorkerSpec,
    agents: dict[Cell, Agent],
    simulator: Simulator,
    connection: Connection,
) -> Done | Lost | Fatal:
    where = f"policy {spec.policy.name!r} at {job.cell}"
    try:
        if job.cell not in agents:
            agents[job.cell] = _make_agent(spec, job.cell)
        where += f", seed {job.seed}"
        with _tape(job, spec, simulator) as tape:
            return Done(*run_episode(job, agents[job.cell], simulator, connection.send, tape))
    except SimulatorLostError as error:
        return Lost(str(error))
    except SuiteUnavailableError as error:
        return Fatal(str(error), exit_code=3)
    except ConnectionError:
        raise  # the supervisor is gone; nobody is left to tell
    except Exception as error:  # the policy's own: the next episode would end the same way
        traceback.print_exc()
        return Fatal(f"{where}: {describe(error)}", _exit_code(error))


def _make_agent(spec: WorkerSpec, cell: Cell) -> Agent:
    if spec.policy.name == EXPERT:
        return ExpertAgent()
    policy = make_policy(spec.policy, cell, spec.threads)
    watch = spec.record is not None
    return PolicyAgent(policy, spec.execute, watch=watch, truth=spec.truth)


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
