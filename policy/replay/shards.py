"""Our own demonstration shards: safetensors files of whole episodes, end to end.

Their actions are the expert's clean labels, not what was executed (some steps carry noise).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open

from policy.replay.types import ArrayEpisode, DamagedError, EpisodeInfo, Look, ReplayError, unnamed
from policy.types import ActionSpec, ObservationSpec

if TYPE_CHECKING:
    from collections.abc import Callable

SCHEMA = "leanvla-demos-1"
RATE_HZ = 20.0


class Specs(NamedTuple):
    """What the suite that was demonstrated shows and takes; shards do not say."""

    observation: ObservationSpec
    action: ActionSpec


class _Entry(NamedTuple):
    path: Path
    begin: int
    end: int
    facts: dict[str, object]


def is_shards(path: Path) -> bool:
    """Whether `path` is a shard or a folder of shards."""
    if path.is_dir():
        return any(path.glob("demos-*.safetensors"))
    return path.suffix == ".safetensors"


def count_shards(path: Path) -> int:
    """Episodes in a shard or a folder of shards."""
    return len(_entries(path))


def open_shards(
    path: Path, index: int, specs: Specs | None = None, instruction: str | None = None
) -> ArrayEpisode:
    """One episode of a shard or of a folder of shards.

    Args:
        path: the file or folder.
        index: which episode, in the order of file names.
        specs: names and units of the suite; without, values have no names.
        instruction: words instead of the recorded ones.

    Raises:
        ReplayError: when there is no such episode, or the file is no shard.
        DamagedError: when the file is cut.
    """
    entries = _entries(path)
    if not 0 <= index < len(entries):
        raise ReplayError(f"{path}: episode {index} of {len(entries)}: count from 0")
    entry = entries[index]
    span = slice(entry.begin, entry.end)
    with safe_open(entry.path, framework="numpy") as file:
        actions = np.asarray(file.get_slice("actions")[span], np.float32)
        states = np.asarray(file.get_slice("states")[span], np.float32)
        views = file.get_slice("frames").get_shape()[1]
    specs = specs or Specs(
        ObservationSpec(unnamed(views, "view"), unnamed(states.shape[1], "state")),
        ActionSpec(unnamed(actions.shape[1], "action"), 1, RATE_HZ, "unknown", "unknown"),
    )
    _check_widths(entry.path, specs, views, states, actions)
    info = EpisodeInfo(
        name=f"{entry.path.name}, seed {entry.facts['seed']}",
        layout="demos",
        observation=specs.observation,
        action=specs.action,
        rate_hz=specs.action.rate_hz,
        instruction=instruction or str(entry.facts["instruction"]),
        steps=len(actions),
        duration_s=len(actions) / specs.action.rate_hz,
        facts={**entry.facts, "actions": "labels of the expert, not what was executed"},
    )
    return ArrayEpisode(info, actions, _looker(entry, states))


def _looker(entry: _Entry, states: np.ndarray) -> Callable[[int], Look]:
    file = safe_open(entry.path, framework="numpy")
    frames = file.get_slice("frames")

    def look(number: int) -> Look:
        at = entry.begin + number
        return Look(tuple(np.ascontiguousarray(f) for f in frames[at : at + 1][0]), states[number])

    return look


def _entries(path: Path) -> list[_Entry]:
    files = sorted(path.glob("*.safetensors")) if path.is_dir() else [path]
    return [entry for file in files for entry in _episodes_of(file)]


def _episodes_of(path: Path) -> list[_Entry]:
    try:
        with safe_open(path, framework="numpy") as file:
            header = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise DamagedError(f"{path}: cannot be read as safetensors ({error})") from None
    if header.get("schema") != SCHEMA:
        raise ReplayError(f"{path}: not a {SCHEMA} shard; collect it again with `leanvla demos`")
    entries, begin = [], 0
    for facts in json.loads(header["episodes"]):
        end = begin + facts.pop("steps")
        entries.append(_Entry(path, begin, end, facts))
        begin = end
    return entries


def _check_widths(
    path: Path, specs: Specs, views: int, states: np.ndarray, actions: np.ndarray
) -> None:
    for what, have, want in (
        ("views", views, len(specs.observation.views)),
        ("state values", states.shape[1], len(specs.observation.state_names)),
        ("action values", actions.shape[1], specs.action.dof),
    ):
        if have != want:
            raise ReplayError(f"{path}: has {have} {what}, its suite has {want}")
