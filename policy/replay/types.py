"""A recorded episode as one stamped stream, whatever file it comes from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import msgspec
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from jaxtyping import Float32, UInt8

    from policy.types import ActionChunk, ActionSpec, Observation, ObservationSpec, Timing

DECISION_SCHEMA = "leanvla.decision/1"


class ReplayError(ValueError):
    """A recording that cannot be replayed as it is: what is wrong, where, and the remedy."""


class DamagedError(ReplayError):
    """A recording with a part missing; `--recover` may read the rest."""

    exit_code = 1


class Look(NamedTuple):
    """What was seen at one moment, decoded: RGB per view, and proprioception."""

    images: tuple[UInt8[np.ndarray, "h w 3"], ...]
    state: Float32[np.ndarray, " s"] | None


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """One answer of a policy as it was given live, and all that is needed to give it again.

    Attributes:
        stamp_s: the observation's stamp as the policy was told it.
        episode: the observation's episode, as the policy was told it.
        number: counts the recording's decisions.
        after: number of the decision whose memory was handed in; None when nothing was remembered.
            Usually the one before; an answer that came too late leaves no memory behind.
        cell: who answered, as replays name cells: `dense`, `vla_pruner @ 0.25`.
        actions: the whole chunk, float32 `[horizon, dof]`.
        kept: per view, the visual tokens that reached the last layer.
        images, states: stamps in nanoseconds of the messages that were looked at, in the layout's
            order; empty where the recording has one look per decision.
    """

    stamp_s: float
    episode: int
    number: int
    after: int | None
    instruction: str
    cell: str = ""
    actions: list[list[float]]
    kept: list[list[int]]
    query_ms: float = 0.0
    phase_ms: dict[str, float] = {}
    visual_tokens: int = 0
    kept_tokens: int = 0
    dense_warmup: bool = False
    images: list[int] = []
    states: list[int] = []
    schema: str = DECISION_SCHEMA

    @property
    def chunk(self) -> Float32[np.ndarray, "horizon dof"]:
        """The actions as an array; float32 survives the way through JSON exactly."""
        return np.asarray(self.actions, np.float32)


def decision_of(
    observation: Observation, chunk: ActionChunk, timing: Timing, **more: Any
) -> Decision:
    """The record of a policy's answer to what it saw.

    Args:
        observation: as the policy was given it.
        chunk: what it said.
        timing: how long it took.
        more: `number`, `after`, `cell`, `images` and `states` of the `Decision`.
    """
    return Decision(
        stamp_s=observation.stamp_s,
        episode=observation.episode,
        instruction=observation.instruction,
        actions=chunk.actions.tolist(),
        kept=[kept.tolist() for kept in chunk.kept],
        query_ms=timing.query_ms,
        phase_ms=dict(timing.phase_ms),
        visual_tokens=timing.visual_tokens,
        kept_tokens=timing.kept_tokens,
        dense_warmup=timing.dense_warmup,
        **more,
    )


class Step(NamedTuple):
    """One moment of an episode.

    Attributes:
        stamp_s: time of the newest frame, seconds on the recording's clock.
        instruction: what was asked for.
        look: decodes what was seen, when somebody wants to see it; raises `ReplayError`, or
            `ValueError` of a decoder, when it cannot be.
        rows: action rows that were executed from here to the next step, float32 `[k, dof]`.
        decision: what a policy decided here when this was recorded; None for demonstrations.
    """

    stamp_s: float
    instruction: str
    look: Callable[[], Look]
    rows: Float32[np.ndarray, "k dof"]
    decision: Decision | None = None


@dataclass
class Losses:
    """What a reader could not give, counted; every sentence names what and where.

    Attributes:
        seconds: recorded time that is gone, as far as it can be known.
        counts: by kind, e.g. `corrupt_chunks`, `undecodable`, `out_of_order`.
        notes: one sentence for each thing that is worth one.
    """

    seconds: float = 0.0
    counts: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def count(self, what: str, times: int = 1) -> None:
        """So many more of `what`."""
        self.counts[what] = self.counts.get(what, 0) + times

    def note(self, sentence: str) -> None:
        """Say it once."""
        if sentence not in self.notes:
            self.notes.append(sentence)

    @property
    def any(self) -> bool:
        """Whether anything at all was lost or had to be mended."""
        return bool(self.counts or self.notes or self.seconds)


@dataclass(frozen=True)
class EpisodeInfo:
    """What an episode is, known before its first step.

    Attributes:
        name: the recording and the episode's place in it, for people.
        layout: `demos`, `lerobot v3.0`, `hdf5`, `rosbag2 mcap`, ...
        observation: views and values of proprioception that `look` gives, in order.
        action: names, rate and meaning of the recorded rows; names are `action_0`, ... where the
            recording has none.
        rate_hz: rows per second.
        steps: steps of the whole episode; None where only reading tells.
        duration_s: recorded time; None where only reading tells.
        facts: further facts of the recording, as JSON values.
    """

    name: str
    layout: str
    observation: ObservationSpec
    action: ActionSpec
    rate_hz: float
    instruction: str = ""
    steps: int | None = None
    duration_s: float | None = None
    facts: dict[str, object] = field(default_factory=dict)


class Episode(Protocol):
    """One episode that can be walked through, as often as needed."""

    @property
    def info(self) -> EpisodeInfo:
        """What it is."""
        ...

    @property
    def losses(self) -> Losses:
        """What could not be read; complete after a walk."""
        ...

    def steps(self) -> Iterator[Step]:
        """Walk through it once, in order of time."""
        ...


@dataclass(frozen=True)
class ArrayEpisode:
    """An episode whose actions are one array and whose looks are found by number.

    Attributes:
        actions: float32 `[steps, dof]`.
        look_at: decodes the look of one step.
        stamps_s: seconds per step, or None for evenly spaced ones.
    """

    info: EpisodeInfo
    actions: Float32[np.ndarray, "steps dof"]
    look_at: Callable[[int], Look]
    stamps_s: np.ndarray | None = None
    losses: Losses = field(default_factory=Losses)

    def steps(self) -> Iterator[Step]:
        """Walk through it once."""
        for number, row in enumerate(self.actions):
            even = number / self.info.rate_hz
            yield Step(
                even if self.stamps_s is None else float(self.stamps_s[number]),
                self.info.instruction,
                lambda number=number: self.look_at(number),  # type: ignore[misc]
                row[None],
            )


def unnamed(count: int, stem: str) -> tuple[str, ...]:
    """Names for values that a recording has none for."""
    return tuple(f"{stem}_{i}" for i in range(count))
