"""One episode: an agent and a simulator take turns until the task is solved or time is up."""

from __future__ import annotations

import dataclasses
import time
from typing import TYPE_CHECKING, NamedTuple, Protocol

from policy.types import Timing
from sim.rollout.match import adapt_actions, match
from sim.rollout.simulator import FILM_EVERY
from sim.rollout.types import Beat, EpisodeRecord, Frame, Job, QueryTruth, Recording
from sim.truth import Witness

if TYPE_CHECKING:
    from collections.abc import Callable

    from jaxtyping import Int64
    from numpy import ndarray

    from policy.types import ActionChunk, Observation, Policy
    from sim.rollout.match import Adapter
    from sim.rollout.simulator import Advance, Opening, Simulator
    from sim.suites.base import SuiteSpec

    Kept = tuple[Int64[ndarray, " k"], ...]

EXPERT_STEPS = 8  # control steps per request when the expert acts


class Turn(NamedTuple):
    """One query and the steps that followed it; an expert's turn has no chunk, few have truth."""

    advance: Advance
    timings: list[Timing]
    kept: Kept
    chunk: ActionChunk | None = None
    truth: QueryTruth | None = None


class Agent(Protocol):
    """Whoever decides: a policy, or the suite's scripted expert.

    Attributes:
        engine: what runs it; empty when it does not tell.
    """

    engine: str

    def reset(self, suite: SuiteSpec, observation: Observation) -> None:
        """A new episode begins."""
        ...

    def turn(self, simulator: Simulator, seen: Observation, most: int, film: int | None) -> Turn:
        """Decide, and execute at most `most` control steps."""
        ...


class Tape(Protocol):
    """Whoever takes an episode down while it runs."""

    def add(self, step: int, seen: Observation, turn: Turn) -> None:
        """One query at control step `step`, and what followed."""
        ...

    def end(self, record: EpisodeRecord) -> None:
        """How it ended."""
        ...


class PolicyAgent:
    """A policy that is asked once per chunk.

    Args:
        policy: the policy.
        execute: control steps executed of each chunk; None asks the policy, then the chunk.
        watch: look between the steps, too; for recordings.
        truth: set kept tokens beside the simulator's segmentation.
    """

    def __init__(
        self, policy: Policy, execute: int | None, *, watch: bool = False, truth: bool = False
    ) -> None:
        self._policy, self._watch, self._truth = policy, watch, truth
        self.engine = str(getattr(policy, "runs_on", ""))
        self._witness: Witness | None = None
        self._execute = execute or getattr(policy, "execute", None) or policy.action_spec.horizon
        self._choose: Callable[[Observation], Observation] | None = None
        self._adapter: Adapter | None = None
        self._state = policy.initial_state()

    def reset(self, suite: SuiteSpec, observation: Observation) -> None:
        """Forget the last episode; answer one query unmeasured when this is the first.

        The first query of a process allocates and compiles; it belongs to no episode.
        """
        self._state = self._policy.initial_state()
        if self._choose is None:
            self._choose = match(self._policy, suite)
            self._adapter = adapt_actions(self._policy, suite)
            if self._truth:
                self._witness = Witness(self._policy, suite)
            self._policy.infer(self._choose(observation), self._state)

    def turn(self, simulator: Simulator, seen: Observation, most: int, film: int | None) -> Turn:
        """Ask the policy once and execute the head of its chunk."""
        observation = self._choose(seen) if self._choose else seen
        chunk, self._state, timing = self._policy.infer(observation, self._state)
        actions = chunk.actions[: min(self._execute, most)]
        if self._adapter is not None:
            actions = self._adapter.convert(actions)
        truth = None
        if self._witness is not None:
            view_tokens = timing.visual_tokens // len(chunk.kept)
            truth = self._witness.compare(simulator.truth(), chunk.kept, view_tokens)
        advance = simulator.advance(actions, film, watch=self._watch)
        return Turn(advance, [timing], chunk.kept, chunk, truth)


class ExpertAgent:
    """The suite's scripted expert: an upper bound that sees the simulator's truth."""

    engine = ""

    def reset(self, suite: SuiteSpec, observation: Observation) -> None:
        """The expert lives in the suite and was reset with it."""

    def turn(self, simulator: Simulator, seen: Observation, most: int, film: int | None) -> Turn:
        """Let the expert act for a few steps; every step counts as one query."""
        advance = simulator.follow_expert(min(EXPERT_STEPS, most), film)
        return Turn(advance, [Timing(query_ms=ms) for ms in advance.thinking_ms], ())


def run_episode(
    job: Job,
    agent: Agent,
    simulator: Simulator,
    beat: Callable[[Beat], None],
    tape: Tape | None = None,
) -> tuple[EpisodeRecord, Recording | None]:
    """Run one attempt of `job`.

    Args:
        job: cell, seed, and whether to record frames.
        agent: who acts.
        simulator: where.
        beat: told after every query.
        tape: takes the episode down; the caller closes it.

    Raises:
        SimulatorLostError: when the simulator hung, crashed or raised.
        MismatchError: when the policy does not fit the suite.
    """
    suite = simulator.spec  # waits until the simulator stands, so that no episode pays for it
    began = time.perf_counter()
    opening = simulator.begin(job.seed, swap=job.swap, film=job.film)
    agent.reset(suite, opening.observation)
    notes = _Notes(opening)
    seen: Observation | None = opening.observation
    while seen is not None and notes.steps < suite.max_steps:
        # Called by its seed, so that a method that draws draws the same whenever it is run again.
        seen = dataclasses.replace(seen, episode=job.seed)
        turn = agent.turn(simulator, seen, suite.max_steps - notes.steps, job.film)
        if tape is not None:
            tape.add(notes.steps, seen, turn)
        notes.add(turn)
        beat(Beat(job.cell, turn.timings[-1].query_ms if turn.timings else 0.0))
        seen = turn.advance.observation
    record = notes.record(job, suite, agent.engine, time.perf_counter() - began)
    if tape is not None:
        tape.end(record)
    return record, notes.recording(record, suite) if job.film else None


class _Notes:
    """What is written down during an episode."""

    def __init__(self, opening: Opening) -> None:
        self.steps = 0
        self._opening = opening
        self._success = self._wrong = False
        self._timings: list[Timing] = []
        self._truth: list[QueryTruth] = []
        self._frames = [Frame(0, opening.images, ())]

    def add(self, turn: Turn) -> None:
        advance = turn.advance
        self._frames += [Frame(self.steps + at, images, turn.kept) for at, images in advance.film]
        self.steps += advance.steps
        self._success = advance.success
        self._wrong |= advance.wrong_object
        self._timings += turn.timings
        if turn.truth is not None:
            self._truth.append(turn.truth)

    def record(self, job: Job, suite: SuiteSpec, engine: str, seconds: float) -> EpisodeRecord:
        start, spoken = self._opening.start, self._opening.observation.instruction
        timings = self._timings
        return EpisodeRecord(
            seed=job.seed,
            method=job.cell.method,
            keep=job.cell.keep,
            outcome="success" if self._success else "failure",
            task=start.task,
            instruction=start.instruction,
            spoken=spoken if spoken != start.instruction else None,
            render_profile=suite.render_profile,
            init_state_hash=start.init_state_hash,
            perturbations={name: list(values) for name, values in start.perturbed.items()},
            steps=self.steps,
            wrong_object=self._wrong,
            query_ms=[round(t.query_ms, 4) for t in timings],
            phase_ms=_by_phase(timings),
            visual_tokens=max((t.visual_tokens for t in timings), default=0),
            kept=[t.kept_tokens for t in timings],
            sequence_tokens=max((t.sequence_tokens for t in timings), default=0),
            kept_sequence_tokens=[t.kept_sequence_tokens for t in timings],
            layer_sequence_tokens=[round(t.layer_sequence_tokens, 2) for t in timings],
            warmup=[i for i, t in enumerate(timings) if t.dense_warmup],
            engine=engine,
            retries=job.attempt,
            batch=[t.batch for t in timings] if any(t.batch > 1 for t in timings) else [],
            seconds=round(seconds, 4),
            truth=self._truth,
        )

    def recording(self, record: EpisodeRecord, suite: SuiteSpec) -> Recording:
        views = suite.observation.views
        rate = suite.action.rate_hz / FILM_EVERY
        return Recording(
            record, views, tuple(self._frames), rate, record.visual_tokens // len(views)
        )


def _by_phase(timings: list[Timing]) -> dict[str, list[float]]:
    phases = list(dict.fromkeys(name for timing in timings for name in timing.phase_ms))
    return {
        name: [round(timing.phase_ms.get(name, 0.0), 4) for timing in timings] for name in phases
    }
