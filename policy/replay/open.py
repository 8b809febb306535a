"""Open a recording, whatever it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from policy.replay.types import ReplayError

if TYPE_CHECKING:
    from pathlib import Path

    from policy.contract import Contract
    from policy.replay.shards import Specs
    from policy.replay.types import Episode

_HDF5 = (".hdf5", ".h5")
KNOWN = (
    "a LeRobotDataset folder (meta/info.json), a rosbag2 folder or its .mcap or .db3, a LIBERO or "
    "robomimic .hdf5, a folder of bags, or demonstration shards (demos-*.safetensors)"
)


@dataclass(frozen=True)
class Options:
    """How to read a recording.

    Attributes:
        contract: which topic is what; for recordings of messages that do not say so themselves.
        instruction: words that override the recorded ones.
        specs: names and units of the suite that shards were demonstrated in.
        recover: read what a damaged recording of messages still holds.
        every_look: pass over recorded decisions and walk look by look, as a data set needs it.
    """

    contract: Contract | None = None
    instruction: str | None = None
    specs: Specs | None = None
    recover: bool = False
    every_look: bool = False


def count_episodes(path: Path) -> int:
    """Episodes of the recording at `path`; a recording of messages is one.

    Raises:
        ReplayError: when it is nothing that is read here.
    """
    kind = _kind(path)
    if kind == "lerobot":
        from policy.replay.lerobot import count_lerobot

        return count_lerobot(path)
    if kind == "hdf5":
        from policy.replay.hdf5 import count_hdf5

        return count_hdf5(path)
    if kind == "demos":
        from policy.replay.shards import count_shards

        return count_shards(path)
    return len(_bags(path)) if kind == "bags" else 1


def open_episode(path: Path, number: int = 0, options: Options | None = None) -> Episode:
    """One episode of the recording at `path`.

    Raises:
        ReplayError: when it is nothing that is read here, or has no such episode.
        DamagedError: when a part of it is missing.
    """
    options, kind = options or Options(), _kind(path)
    if kind == "lerobot":
        from policy.replay.lerobot import open_lerobot

        return open_lerobot(path, number, options.instruction)
    if kind == "hdf5":
        from policy.replay.hdf5 import open_hdf5

        return open_hdf5(path, number, options.instruction)
    if kind == "demos":
        from policy.replay.shards import open_shards

        return open_shards(path, number, options.specs, options.instruction)
    if kind == "bags":
        bags = _bags(path)
        if not 0 <= number < len(bags):
            raise ReplayError(f"{path}: recording {number} of {len(bags)}: count from 0")
        path, number = bags[number], 0
    if number:
        raise ReplayError(f"{path}: a recording of messages is one episode: leave --episode out")
    from policy.replay.bag import open_bag

    return open_bag(
        path,
        options.contract,
        options.instruction,
        recover=options.recover,
        every_look=options.every_look,
    )


def _kind(path: Path) -> str:
    from policy.replay.lerobot import is_lerobot
    from policy.replay.shards import is_shards
    from policy.replay.storage import is_recording

    if not path.exists():
        raise ReplayError(f"{path}: no such file or folder")
    if is_lerobot(path):
        return "lerobot"
    if path.is_file() and path.suffix in _HDF5:
        return "hdf5"
    if is_shards(path):
        return "demos"
    if is_recording(path):
        return "messages"
    if path.is_dir() and _bags(path):
        return "bags"
    raise ReplayError(f"{path}: not a recording; give {KNOWN}")


def _bags(path: Path) -> list[Path]:
    """Recordings of messages that lie in a folder side by side, by name."""
    from policy.replay.storage import is_recording

    return sorted(folder for folder in path.iterdir() if folder.is_dir() and is_recording(folder))
