"""The values of a rollout: what is asked of a worker, and what comes back.

`EpisodeRecord` is also a line of `episodes.jsonl`; everything else lives in memory only.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jaxtyping import Int64, UInt8
    from numpy import ndarray

DENSE = "dense"
EXPERT = "expert"
Outcome = Literal["success", "failure", "error"]


class RolloutError(RuntimeError):
    """A run that cannot go on: says what failed, where, and what to do.

    Args:
        message: one sentence.
        exit_code: 1 when the run itself is at fault, 2 for bad input, 3 for the environment.
    """

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class EpisodeLostError(RuntimeError):
    """An attempt cannot be brought to its end; the next one can.

    Attributes:
        preempted: see `Lost`.
    """

    preempted = False


class Cell(msgspec.Struct, frozen=True, order=True):
    """One square of the grid: a pruning method at a keep ratio."""

    method: str
    keep: float

    @property
    def pruned(self) -> bool:
        """Whether this cell should drop tokens at all."""
        return self.method != DENSE and self.keep < 1.0

    def __str__(self) -> str:
        """`dense`, or `vla_pruner @ 0.25`."""
        return DENSE if self.method == DENSE else f"{self.method} @ {self.keep:g}"


class QueryTruth(msgspec.Struct, frozen=True):
    """What a query kept of what mattered, by the simulator's segmentation.

    Attributes:
        phase: what the task asked for then.
        shown: per role (`object`, `gripper`, `goal`), patches of each view that show it.
        kept: of these, the ones that reached the last layer.
    """

    phase: str
    shown: dict[str, list[int]]
    kept: dict[str, list[int]]


class EpisodeRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """One finished episode, as it stands in `episodes.jsonl`.

    Attributes:
        outcome: `error` means that the simulator or the worker was lost twice; it says nothing
            about the policy and never counts as a failure.
        perturbations: what was drawn, by kind; empty when nothing was perturbed.
        steps: control steps executed.
        wrong_object: whether another object than the one asked for was moved.
        spoken: what the policy was told, when that is not the instruction that was judged.
        query_ms: wall time of every query.
        phase_ms: per phase, its time in every query; phases that took no time are absent.
        kept: visual tokens that reached the last layer, per query, over all views.
        kept_sequence_tokens: length of the sequence behind the cut, per query.
        layer_sequence_tokens: mean length over the decoder's layers, per query.
        warmup: indices of the queries that ran dense because the history was not filled.
        engine: what ran the policy, e.g. `onnxruntime cpu fp32`; empty when it does not tell.
        retries: attempts that were lost before this one.
        reused_from: the cell whose episode this is, when both are the same computation.
        batch: per query, the observations that shared its forward pass, and so its `query_ms`;
            empty when each had its own.
        seconds: wall time of the whole episode, reset and rendering included.
        truth: per query, what it kept of what mattered; empty unless that was asked for.
    """

    seed: int
    method: str
    keep: float
    outcome: Outcome
    task: str = ""
    instruction: str = ""
    spoken: str | None = None
    render_profile: str = ""
    init_state_hash: str = ""
    perturbations: dict[str, list[float]] = {}
    steps: int = 0
    wrong_object: bool = False
    query_ms: list[float] = []
    phase_ms: dict[str, list[float]] = {}
    visual_tokens: int = 0
    kept: list[int] = []
    sequence_tokens: int = 0
    kept_sequence_tokens: list[int] = []
    layer_sequence_tokens: list[float] = []
    warmup: list[int] = []
    engine: str = ""
    retries: int = 0
    reused_from: str | None = None
    error: str | None = None
    batch: list[int] = []
    seconds: float = 0.0
    truth: list[QueryTruth] = []

    @property
    def cell(self) -> Cell:
        """The square of the grid that this episode belongs to."""
        return Cell(self.method, self.keep)


@dataclass(frozen=True)
class Source:
    """Where a worker gets a suite or a policy: a registered name, or `module:callable`.

    Attributes:
        name: the name on the command line.
        options: keyword arguments for the maker.
        method_options: further fields of the pruning method; the dense reference has none.
        engines: by cell, the exported engine that runs it instead.
        notes: by cell, why it has none, in words.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    method_options: Mapping[str, Any] = field(default_factory=dict)
    engines: Mapping[Cell, str] = field(default_factory=dict)
    notes: Mapping[Cell, str] = field(default_factory=dict)

    def engine_sha256(self, cell: Cell) -> str:
        """Hash of the engine that runs a cell instead of the policy's own runtime; empty for none.

        Raises:
            EngineError: when it cannot be read.
        """
        if cell not in self.engines:
            return ""
        from policy.registry import engine_sha256

        return engine_sha256(Path(self.engines[cell]))


@dataclass(frozen=True)
class Deadlines:
    """How long, in seconds, silence is forgiven before a process is ended.

    Attributes:
        start: until a simulator stands, or a policy has loaded.
        request: for one answer of a simulator: a reset, or a chunk of steps and a frame.
        query: for one query of the policy.
    """

    start: float = 180.0
    request: float = 60.0
    query: float = 120.0

    @property
    def silence(self) -> float:
        """Longest time between two signs of life of a healthy episode worker."""
        return self.start + self.request + self.query


@dataclass(frozen=True)
class Job:
    """One episode to run.

    Attributes:
        swap: tell the policy another instruction that is valid in this scene.
        attempt: 0 first, 1 when it is tried again.
        film: frame size, pixels, when frames are to be recorded, else None.
    """

    cell: Cell
    seed: int
    swap: bool = False
    attempt: int = 0
    film: int | None = None


class Frame(NamedTuple):
    """One moment of a recorded episode.

    Attributes:
        step: control steps executed so far.
        images: one frame per view.
        kept: per view, the visual tokens that the acting query kept; empty before the first query.
    """

    step: int
    images: tuple[UInt8[ndarray, "size size 3"], ...]
    kept: tuple[Int64[ndarray, " k"], ...]


@dataclass(frozen=True)
class Recording:
    """A recorded episode.

    Attributes:
        views: camera names in the order of the frames.
        frames_per_s: rate at which the frames show real time.
        view_tokens: visual tokens of one view; 0 when the policy has none.
    """

    record: EpisodeRecord
    views: tuple[str, ...]
    frames: tuple[Frame, ...]
    frames_per_s: float
    view_tokens: int


class Beat(NamedTuple):
    """A sign of life: a query was answered."""

    cell: Cell
    query_ms: float


class Done(NamedTuple):
    """A finished attempt."""

    record: EpisodeRecord
    recording: Recording | None = None


class Lost(NamedTuple):
    """An attempt that ended with its simulator or its worker.

    Attributes:
        preempted: the machine was taken away, so the attempt says nothing about the simulator.
    """

    reason: str
    preempted: bool = False


class Fatal(NamedTuple):
    """Something that no retry mends: the policy raises, a name is unknown, a suite cannot stand."""

    reason: str
    exit_code: int = 1
