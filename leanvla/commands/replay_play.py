"""The walk of `leanvla replay`: every cell answers, and what matters of it is kept."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from leanvla.commands.replay import NOBODY
from policy.replay.match import Fit, fit, parse_view
from policy.replay.run import Pace, observe, replay
from policy.replay.trace import Trace
from policy.replay.types import ReplayError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from leanvla.commands.replay import Replay
    from policy.replay.run import Actor, Moment
    from policy.replay.types import Episode, Look
    from sim.rollout.types import Cell, Source

STILLS = 4


@dataclass
class Stills:
    """A few looks spread over the episode, with the query that was asked then."""

    kept: list[tuple[int, Look]] = field(default_factory=list)
    stride: int = 1

    def offer(self, query: int, look: Look) -> None:
        """Keep this one if its turn has come."""
        if query % self.stride:
            return
        self.kept.append((query, look))
        if len(self.kept) >= 2 * STILLS:
            self.kept, self.stride = self.kept[::2], self.stride * 2


@dataclass
class Played:
    """A replay that has happened."""

    episode: Episode
    cells: list[Cell]
    traces: list[Trace]
    fit: Fit
    execute: int
    names: tuple[str, ...]
    source: Source
    engines: list[str] = field(default_factory=list)
    view_tokens: int = 0
    looks: int = 0
    decoded: int = 0
    seconds: float = 0.0
    rows: list[np.ndarray] = field(default_factory=list)
    stamps_s: list[float] = field(default_factory=list)
    stills: Stills = field(default_factory=Stills)

    @property
    def recorded(self) -> np.ndarray:
        """Recorded rows, `[rows, r]`."""
        width = len(self.episode.info.action.names)
        return np.concatenate(self.rows) if self.rows else np.zeros((0, width), np.float32)

    @property
    def covered_s(self) -> float:
        """Recorded time between the first and the last look."""
        return self.stamps_s[-1] - self.stamps_s[0] if self.stamps_s else 0.0


def play(
    config: Replay, episode: Episode, actors: Sequence[tuple[Cell, Actor]], source: Source
) -> Played:
    """Walk through the episode.

    Args:
        config: what was asked for.
        episode: the recording.
        actors: what answers, cell by cell.
        source: where they come from.

    Raises:
        ReplayError: when it is damaged, or does not fit the policy.
    """
    played = _prepare(config, episode, actors, source)
    pace = Pace(played.execute, config.limit, config.realtime, config.policy == NOBODY)
    chosen = [actor for _, actor in actors]
    log = _rerun_log(config, played)
    _warm_up(episode, chosen, played.fit)
    began = time.perf_counter()
    for moment in replay(episode, chosen, played.fit.choose, pace):
        _take(played, moment)
        if log is not None:
            log.add(moment)
    played.seconds = time.perf_counter() - began
    _check_answers(played)
    if log is not None:
        log.close()
    return played


def _prepare(
    config: Replay, episode: Episode, actors: Sequence[tuple[Cell, Actor]], source: Source
) -> Played:
    info = episode.info
    views = [parse_view(text) for text in config.view]
    if not actors:
        whole = fit(info, info.observation, info.action, views)
        return Played(episode, [], [], whole, config.execute or 1, info.action.names, source)
    policy = actors[0][1].policy
    matched = fit(
        info,
        policy.observation_spec,
        policy.action_spec,
        views,
        state_by_place=config.state_by_place,
    )
    execute = config.execute or getattr(policy, "execute", None) or policy.action_spec.horizon
    return Played(
        episode,
        [cell for cell, _ in actors],
        [Trace(actor.name) for _, actor in actors],
        matched,
        min(execute, policy.action_spec.horizon),
        policy.action_spec.names,
        source,
        [str(getattr(actor.policy, "runs_on", "")) for _, actor in actors],
    )


def _warm_up(episode: Episode, actors: Sequence[Actor], matched: Fit) -> None:
    """Answer the first look once, unmeasured: the first query of a process allocates."""
    if not actors:
        return
    for step in episode.steps():
        try:
            observation = observe(step, matched.choose(step.look()))
        except ValueError:
            continue  # told of when it is met again
        for actor in actors:
            actor.policy.infer(observation, actor.policy.initial_state())
        return


def _take(played: Played, moment: Moment) -> None:
    played.looks += 1
    played.decoded += moment.look is not None
    played.stamps_s.append(moment.step.stamp_s)
    if len(moment.step.rows):
        played.rows.append(moment.step.rows)
    if not moment.answers:
        return
    query = len(played.traces[0].answers)
    for trace, inference in zip(played.traces, moment.answers, strict=True):
        trace.add(moment, inference)
    tokens = moment.answers[0].timing.visual_tokens
    if moment.look is not None:
        played.view_tokens = tokens // max(1, len(moment.look.images))
        played.stills.offer(query, moment.look)


def _check_answers(played: Played) -> None:
    """A replay in which nobody was asked is none."""
    if not played.traces or played.traces[0].answers:
        return
    why = next(iter(played.episode.losses.notes), "it holds no look")
    raise ReplayError(f"{played.episode.info.name}: the policy could not be asked once: {why}")


def _rerun_log(config: Replay, played: Played) -> Any:
    if config.rerun is None:
        return None
    from leanvla.report.replay_rerun import RerunLog

    return RerunLog(config.rerun, played)
