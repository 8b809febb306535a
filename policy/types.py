"""What a policy sees and says: frozen values, checked once, here.

Nothing in this module imports torch: the deployed path runs on numpy and an engine's runtime.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jaxtyping import Float32, Int64, UInt8

    from pruning.history import PrunerState

MAX_INSTRUCTION_CHARS = 512
_SPARSE = 64  # rows and columns between the pixels that are looked at first
PHASE_BELOW_CUT, PHASE_ABOVE_CUT = "prefill_below", "prefill_above"
PHASES = (
    *("preprocess", "vision", PHASE_BELOW_CUT, "selection", PHASE_ABOVE_CUT),
    *("decode", "head", "memory", "postprocess"),
)
"""Phases of a query in the order in which they run; a policy reports those that it has.

`selection` is scores, choice and gather; `memory` is what a method keeps for its next query."""


class ObservationError(ValueError):
    """An observation that no policy may act on: says which field, what is wrong, and the remedy."""


@dataclass(frozen=True)
class ObservationSpec:
    """What a policy needs to see, or a robot can show. Both sides publish one; a mismatch refuses.

    Attributes:
        views: camera names in the order in which the policy reads them, main camera first.
        state_names: one name per proprioceptive value, with its unit; empty when unused.
    """

    views: tuple[str, ...]
    state_names: tuple[str, ...] = ()


@dataclass(frozen=True)
class ActionSpec:
    """What one action row means.

    Attributes:
        names: one name per degree of freedom, with its unit.
        horizon: rows in a chunk.
        rate_hz: control rate at which the rows are executed.
        rotation: rotation kind of the orientation part (`axis_angle_delta`, `none`, ...).
        gripper: polarity of the last dimension, e.g. `-1 open, +1 close`.
    """

    names: tuple[str, ...]
    horizon: int
    rate_hz: float
    rotation: str = "axis_angle_delta"
    gripper: str = "-1 open, +1 close"

    @property
    def dof(self) -> int:
        """Degrees of freedom of one action row."""
        return len(self.names)


@dataclass(frozen=True)
class Observation:
    """One stamped observation.

    Attributes:
        images: one RGB frame per view, uint8 `[h, w, 3]`, in the order of `ObservationSpec.views`.
        state: proprioception in physical units, float32 `[s]`, or None.
        instruction: what to do, in words.
        stamp_s: time of the newest frame, seconds on the source's clock.
        episode: changes when the scene was reset; temporal state never crosses it.

    Raises:
        ObservationError: on a wrong shape or type, a constant frame, a state that is not finite, or
            an instruction that is empty, over-long or not UTF-8 text.
    """

    images: tuple[UInt8[np.ndarray, "h w 3"], ...]
    state: Float32[np.ndarray, " s"] | None
    instruction: str
    stamp_s: float = 0.0
    episode: int = 0

    def __post_init__(self) -> None:
        """Check every field."""
        if not self.images:
            raise ObservationError("no camera frame: give one RGB image per view")
        for view, image in enumerate(self.images):
            _check_image(view, image)
        if self.state is not None:
            _check_state(self.state)
        _check_instruction(self.instruction)
        if not math.isfinite(self.stamp_s):
            raise ObservationError(f"stamp_s is {self.stamp_s}: give seconds on the source's clock")

    def check_against(self, spec: ObservationSpec) -> None:
        """Refuse an observation that does not carry what `spec` asks for.

        Raises:
            ObservationError: on a wrong number of cameras, or a missing or wrongly sized state.
        """
        if len(self.images) != len(spec.views):
            raise ObservationError(
                f"{len(self.images)} camera frame(s) given, the policy reads {len(spec.views)}: "
                f"{', '.join(spec.views)}"
            )
        want = len(spec.state_names)
        have = 0 if self.state is None else self.state.shape[0]
        if want and have != want:
            raise ObservationError(
                f"state has {have} value(s), the policy reads {want}: {', '.join(spec.state_names)}"
            )


@dataclass(frozen=True)
class ActionChunk:
    """Actions for the next steps.

    Attributes:
        actions: float32 `[horizon, dof]` in the units of the policy's `ActionSpec`.
        normalized: the same in the checkpoint's [-1, 1] range.
        tokens: action token ids `[horizon, dof]`, or None for a continuous head.
        kept: per view, the sorted indices of the visual tokens that reached the last layer.
    """

    actions: Float32[np.ndarray, "horizon dof"]
    normalized: Float32[np.ndarray, "horizon dof"]
    tokens: Int64[np.ndarray, "horizon dof"] | None
    kept: tuple[Int64[np.ndarray, " k"], ...]


@dataclass(frozen=True)
class Timing:
    """Where one query's time went.

    Attributes:
        query_ms: wall time from observation to action chunk.
        phase_ms: wall time per phase, see `PHASES`. Absent phases took no time.
        visual_tokens: visual tokens in, over all views.
        kept_tokens: visual tokens that reached the last layer, over all views.
        dense_warmup: True when the pruner ran dense because its history was not filled yet.
        sequence_tokens: length of the prefill sequence before the cut, text and all.
        kept_sequence_tokens: the same after the cut; both 0 when a policy does not tell.
        spans: every stretch of a phase as (phase, start, end), ms from the start of the query; a
            phase may come twice. Empty when a policy does not tell.
        layer_sequence_tokens: mean length that the decoder's layers saw, wherever the cuts were; 0
            when a policy does not tell.
        batch: observations that shared the forward pass; all times are those of the whole pass.
    """

    query_ms: float
    phase_ms: Mapping[str, float] = field(default_factory=dict)
    visual_tokens: int = 0
    kept_tokens: int = 0
    dense_warmup: bool = False
    sequence_tokens: int = 0
    kept_sequence_tokens: int = 0
    spans: tuple[tuple[str, float, float], ...] = ()
    layer_sequence_tokens: float = 0.0
    batch: int = 1


class Inference(NamedTuple):
    """What a query gives back: the chunk, the state for the next query, and where time went."""

    chunk: ActionChunk
    state: PrunerState
    timing: Timing


class Policy(Protocol):
    """A policy: one observation and one explicit state in, one chunk and the next state out."""

    observation_spec: ObservationSpec
    action_spec: ActionSpec

    def initial_state(self) -> PrunerState:
        """The state to hand in with the first observation of an episode."""
        ...

    def infer(self, observation: Observation, state: PrunerState) -> Inference:
        """Run one query. Same observation and state give bit-identical results."""
        ...


def _check_image(view: int, image: np.ndarray) -> None:
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
        kind = getattr(image, "dtype", type(image).__name__)
        raise ObservationError(f"view {view}: frame is {kind}, give a uint8 RGB array [h, w, 3]")
    if image.ndim != 3 or image.shape[2] != 3 or min(image.shape[:2]) < 8:
        raise ObservationError(
            f"view {view}: frame has shape {image.shape}, give RGB [h, w, 3] of at least 8 x 8"
        )
    # Most pictures show it in a few pixels; only one that seems empty is read as a whole.
    few = image[::_SPARSE, ::_SPARSE].tobytes()
    if few.count(few[:1]) == len(few) and image.min() == image.max():
        raise ObservationError(
            f"view {view}: every pixel is {image.flat[0]}: the camera or the renderer shows "
            "nothing; check the lens cap, the topic, or run `leanvla doctor` for the GL backend"
        )


def _check_state(state: np.ndarray) -> None:
    if not isinstance(state, np.ndarray) or state.dtype != np.float32 or state.ndim != 1:
        raise ObservationError("state must be a one-dimensional float32 array")
    if not np.isfinite(state).all():
        bad = np.flatnonzero(~np.isfinite(state)).tolist()
        raise ObservationError(f"state is not finite at index {bad}: drop this observation")


def _check_instruction(text: str) -> None:
    if not isinstance(text, str):
        raise ObservationError(f"instruction is {type(text).__name__}: give UTF-8 text")
    if not text.strip():
        raise ObservationError("instruction is empty: say what the robot should do")
    if len(text) > MAX_INSTRUCTION_CHARS:
        raise ObservationError(
            f"instruction has {len(text)} characters, at most {MAX_INSTRUCTION_CHARS} are read"
        )
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ObservationError(f"instruction is not UTF-8 text: {error.reason}") from None
