"""Replay: every cell answers the same looks, each with its own explicit state.

The policy code is the live one: the recording only takes the place of the cameras.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from policy.types import Observation, ObservationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from policy.replay.types import Episode, Look, Step
    from policy.types import Inference, Policy
    from pruning.history import PrunerState


RECALLED = 64  # decisions whose memory is kept: far more than can be under way at once


@dataclass
class Actor:
    """A policy at work on a recording.

    Attributes:
        name: the cell, e.g. `vla_pruner @ 0.25`.
        policy: who answers.
        state: what it carries from query to query.
    """

    name: str
    policy: Policy
    state: PrunerState = field(init=False)
    _after: dict[int, PrunerState] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Begin with nothing remembered."""
        self.forget()

    def forget(self) -> None:
        """A new episode."""
        self.state = self.policy.initial_state()
        self._after.clear()

    def recall(self, number: int | None) -> bool:
        """Take up the memory that decision `number` left; whether it is known."""
        if number in self._after:
            self.state = self._after[number]
            return True
        self.forget()
        return number is None

    def answer(self, observation: Observation, number: int | None = None) -> Inference:
        """One query; the state moves on, and is kept as what decision `number` left."""
        inference = self.policy.infer(observation, self.state)
        self.state = inference.state
        if number is not None:
            self._after[number] = inference.state
            self._after.pop(number - RECALLED, None)
        return inference


class Moment(NamedTuple):
    """One look, and what every cell answered; no answers where nobody was asked."""

    number: int
    row: int
    step: Step
    look: Look | None
    answers: tuple[Inference, ...]


@dataclass(frozen=True)
class Pace:
    """How a replay goes.

    Attributes:
        execute: rows of a chunk that are executed before the next query, where the recording holds
            no decisions.
        limit: most looks; None for all.
        realtime: wait for the recording's clock.
        decode_all: decode every look, also where nobody is asked.
    """

    execute: int = 1
    limit: int | None = None
    realtime: bool = False
    decode_all: bool = False


def replay(
    episode: Episode,
    actors: Sequence[Actor],
    choose: Callable[[Look], Look],
    pace: Pace,
) -> Iterator[Moment]:
    """Walk through an episode and ask every actor where it is due.

    Where the recording holds decisions, exactly these are asked again: same stamps, same episode,
    same resets. Elsewhere a query is due when the rows of the last chunk are used up.

    A look that cannot be decoded, or that no policy may act on, is counted in `episode.losses` and
    skipped, as it is live.

    Raises:
        ReplayError: when the recording is damaged.
    """
    clock = _Clock(pace.realtime)
    row, due = 0, 0
    for actor in actors:
        actor.forget()
    for number, step in enumerate(episode.steps()):
        if pace.limit is not None and number >= pace.limit:
            return
        asked = bool(actors) and (step.decision is not None or row >= due)
        clock.wait(step.stamp_s)
        look = _look(episode, step, choose) if asked or pace.decode_all else None
        answers: tuple[Inference, ...] = ()
        if asked and look is not None:
            answers = _ask(episode, actors, step, look)
        if answers:
            due = row + pace.execute
        yield Moment(number, row, step, look, answers)
        row += len(step.rows)


def observe(step: Step, look: Look, words: str | None = None) -> Observation:
    """What a policy is shown, as it was shown live where that is known."""
    decision = step.decision
    return Observation(
        images=look.images,
        state=look.state,
        instruction=words or step.instruction,
        stamp_s=step.stamp_s if decision is None else decision.stamp_s,
        episode=0 if decision is None else decision.episode,
    )


def _look(episode: Episode, step: Step, choose: Callable[[Look], Look]) -> Look | None:
    from policy.replay.types import DamagedError

    try:
        return choose(step.look())
    except DamagedError:
        raise
    except ValueError as error:  # a decoder's named error: this one frame is lost, live as here
        episode.losses.count("undecodable")
        episode.losses.note(str(error))
        return None


def _ask(
    episode: Episode, actors: Sequence[Actor], step: Step, look: Look
) -> tuple[Inference, ...]:
    try:
        observation = observe(step, look)
    except ObservationError as error:
        episode.losses.count("refused_observations")
        episode.losses.note(str(error))
        return ()
    decision = step.decision
    if decision is None:
        return tuple(actor.answer(observation) for actor in actors)
    if not all([actor.recall(decision.after) for actor in actors]):
        episode.losses.count("memory_lost")
        episode.losses.note("a decision before was lost: the next one begins without its memory")
    return tuple(actor.answer(observation, decision.number) for actor in actors)


class _Clock:
    """Waits until the recording's time has come."""

    def __init__(self, realtime: bool) -> None:
        self._realtime = realtime
        self._began: tuple[float, float] | None = None

    def wait(self, stamp_s: float) -> None:
        if not self._realtime:
            return
        now = time.monotonic()
        if self._began is None:
            self._began = (now, stamp_s)
        ahead_s = (stamp_s - self._began[1]) - (now - self._began[0])
        if ahead_s > 0:
            time.sleep(ahead_s)
