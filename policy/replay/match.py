"""Does this recording fit this policy? By name; where names differ, only as one is told to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from policy.replay.types import Look, ReplayError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from jaxtyping import UInt8

    from policy.replay.types import EpisodeInfo
    from policy.types import ActionSpec, ObservationSpec

TURNS = {"": 0, "90": 1, "180": 2, "270": 3}


class ViewChoice(NamedTuple):
    """Which recorded view feeds a view of the policy, and how it is turned first.

    Attributes:
        turn: `90`, `180`, `270` (anticlockwise degrees), `flip` (upside down), or empty.
    """

    view: str
    source: str
    turn: str = ""


@dataclass(frozen=True)
class Fit:
    """How a recording and a policy go together.

    Attributes:
        choose: recorded look to the policy's.
        compared: pairs (place in the policy's row, place in the recorded row) of values with the
            same name and, for the gripper, the same polarity.
        notes: what is not compared, and why.
    """

    choose: Callable[[Look], Look]
    compared: tuple[tuple[int, int], ...]
    notes: tuple[str, ...]


def parse_view(text: str) -> ViewChoice:
    """`main=agentview_rgb@180`, as on the command line.

    Raises:
        ReplayError: when it is not of that form.
    """
    view, equals, rest = text.partition("=")
    source, _, turn = rest.partition("@")
    if not equals or not view or not source or turn not in (*TURNS, "flip"):
        raise ReplayError(
            f"--view {text}: write VIEW=RECORDED or VIEW=RECORDED@TURN with TURN 90, 180, 270, flip"
        )
    return ViewChoice(view, source, turn)


def fit(
    info: EpisodeInfo,
    observation: ObservationSpec,
    action: ActionSpec,
    views: Sequence[ViewChoice] = (),
    *,
    state_by_place: bool = False,
) -> Fit:
    """Match a recording to what a policy reads and says.

    Args:
        info: the recording.
        observation: what the policy reads.
        action: what it says.
        views: recorded views for views of other names.
        state_by_place: take recorded state values in their order, whatever they are called.

    Raises:
        ReplayError: when the recording lacks what the policy reads, with both sides.
    """
    chosen = {choice.view: choice for choice in views}
    unknown = sorted(set(chosen) - set(observation.views))
    if unknown:
        raise ReplayError(f"--view {unknown[0]}: the policy reads {', '.join(observation.views)}")
    places = []
    for view in observation.views:
        choice = chosen.get(view, ViewChoice(view, view))
        places.append((_view_place(info, choice), choice.turn))
    state = _state_places(info, observation, state_by_place)

    def choose(look: Look) -> Look:
        images = tuple(turned(look.images[place], turn) for place, turn in places)
        if not state:
            return Look(images, None)
        return Look(images, None if look.state is None else look.state[state])

    compared, notes = _compared(info.action, action)
    return Fit(choose, compared, notes)


def turned(image: UInt8[np.ndarray, "h w 3"], turn: str) -> UInt8[np.ndarray, "h w 3"]:
    """A picture turned or flipped; the same object when there is nothing to do."""
    if not turn:
        return image
    other = image[::-1] if turn == "flip" else np.rot90(image, TURNS[turn])
    return np.ascontiguousarray(other)


def _view_place(info: EpisodeInfo, choice: ViewChoice) -> int:
    have = info.observation.views
    if choice.source not in have:
        raise ReplayError(
            f"the policy reads view {choice.view!r}, {info.name} shows {', '.join(have)}: "
            f"choose one with `--view {choice.view}={have[0]}`"
        )
    return have.index(choice.source)


def _state_places(info: EpisodeInfo, spec: ObservationSpec, by_place: bool) -> list[int]:
    have, want = info.observation.state_names, spec.state_names
    if not want:
        return []
    if by_place:
        if len(have) < len(want):
            raise ReplayError(
                f"the policy reads {len(want)} state values, {info.name} has {len(have)}"
            )
        return list(range(len(want)))
    missing = [name for name in want if name not in have]
    if missing:
        raise ReplayError(
            f"the policy reads state value {missing[0]!r}, {info.name} has "
            f"{', '.join(have) or 'none'}: if they mean the same in the same order, say "
            "`--state-by-place`"
        )
    return [have.index(name) for name in want]


def _compared(
    recorded: ActionSpec, said: ActionSpec
) -> tuple[tuple[tuple[int, int], ...], tuple[str, ...]]:
    pairs = tuple(
        (place, recorded.names.index(name))
        for place, name in enumerate(said.names)
        if name in recorded.names
    )
    notes = []
    left = [name for name in said.names if name not in recorded.names]
    if left:
        notes.append(
            f"not compared with the recording, which has no value of that name: {', '.join(left)}"
        )
    for what in ("rotation", "gripper", "rate_hz"):
        ours, theirs = getattr(said, what), getattr(recorded, what)
        if ours != theirs:
            notes.append(f"{what}: the policy says {ours}, the recording {theirs}")
    return pairs, tuple(notes)
