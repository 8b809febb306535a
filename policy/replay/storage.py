"""The files of a recording, and their messages in order of time, still encoded.

MCAP is read chunk by chunk, so that one damaged chunk costs one chunk (`mcap_file.py`); sqlite3 and
compressed bags go through the `rosbags` library (`sqlite_file.py`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import yaml

from policy.replay.types import DamagedError, ReplayError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from policy.replay.types import Losses

_SUFFIXES = {".mcap": "mcap", ".db3": "sqlite3"}
MAX_METADATA_BYTES = 16 << 20


class RawMessage(NamedTuple):
    """One message: its topic and type, when it was written, and its bytes."""

    topic: str
    type: str
    log_ns: int
    data: bytes


@dataclass
class Records:
    """Named metadata records of a recording, filled while it is read."""

    found: dict[str, dict[str, str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Recording:
    """A recording on disk.

    Attributes:
        path: the folder or the file.
        storage: `mcap` or `sqlite3`.
        files: its storage files, in order.
        compressed: whole files or messages are compressed by rosbag2 itself.
        metadata: content of `metadata.yaml`; None when there is none.
        bag: whether it is a rosbag2 folder.
    """

    path: Path
    storage: str
    files: tuple[Path, ...]
    compressed: bool = False
    metadata: dict[str, Any] | None = None
    bag: bool = False

    @property
    def end_ns(self) -> int | None:
        """When the last message was written, as `metadata.yaml` has it."""
        try:
            begin = self.metadata["starting_time"]["nanoseconds_since_epoch"]  # type: ignore[index]
            return int(begin) + int(self.metadata["duration"]["nanoseconds"])  # type: ignore[index]
        except (KeyError, TypeError, ValueError):
            return None

    def messages(self, losses: Losses, records: Records, *, recover: bool) -> Iterator[RawMessage]:
        """Every message in order of time.

        Raises:
            DamagedError: when something is missing and `recover` is off; with it, `losses` counts.
        """
        if self.storage == "sqlite3" or self.compressed:
            from policy.replay.sqlite_file import read
        else:
            from policy.replay.mcap_file import read
        return read(self, losses, records, recover=recover)


def is_recording(path: Path) -> bool:
    """Whether `path` is a rosbag2 folder, or a file of one."""
    if path.is_dir():
        return (path / "metadata.yaml").is_file() or bool(_storage_files(path))
    return path.suffix in _SUFFIXES


def find_recording(path: Path, losses: Losses) -> Recording:
    """The files of the recording at `path`.

    A folder without `metadata.yaml` (its recorder was killed) is read all the same, and noted.

    Raises:
        ReplayError: when there is nothing to read, or `metadata.yaml` is not what rosbag2 writes.
        DamagedError: when a file that it names is missing.
    """
    if path.is_file():
        return Recording(path, _SUFFIXES[path.suffix], (path,))
    metadata = _read_metadata(path / "metadata.yaml")
    if metadata is None:
        files = _storage_files(path)
        losses.count("without_metadata")
        losses.note(
            f"{path}: has no metadata.yaml (was its recorder killed?); read without it; "
            f"`ros2 bag reindex {path}` writes a new one"
        )
        return Recording(path, _SUFFIXES[files[0].suffix], files, bag=True)
    names = [str(name) for name in metadata.get("relative_file_paths", [])]
    files = tuple(path / name.rpartition("/")[2] for name in names)
    missing = [file.name for file in files if not file.is_file()]
    if missing or not files:
        raise DamagedError(f"{path}: lacks {', '.join(missing) or 'every file'}: copy it again")
    storage = str(metadata.get("storage_identifier"))
    if storage not in _SUFFIXES.values():
        raise ReplayError(f"{path}: storage {storage!r}: choose {', '.join(_SUFFIXES.values())}")
    mode = str(metadata.get("compression_mode") or "none").lower()
    return Recording(path, storage, files, mode != "none", metadata, bag=True)


def _storage_files(path: Path) -> tuple[Path, ...]:
    """Storage files of a folder in the order in which they were split off."""
    found = [file for file in path.iterdir() if file.suffix in _SUFFIXES]

    def number(file: Path) -> tuple[int, str]:
        tail = file.stem.rpartition("_")[2]
        return (int(tail) if tail.isdigit() else 0, file.name)

    return tuple(sorted(found, key=number))


def _read_metadata(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    if path.stat().st_size > MAX_METADATA_BYTES:
        raise ReplayError(f"{path}: larger than {MAX_METADATA_BYTES} bytes, which no bag's is")
    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
        information = value["rosbag2_bagfile_information"]
    except (yaml.YAMLError, KeyError, TypeError, UnicodeDecodeError, RecursionError):
        raise ReplayError(
            f"{path}: not what rosbag2 writes; remove it to read the bag without it"
        ) from None
    if not isinstance(information, dict):
        raise ReplayError(f"{path}: empty; remove it to read the bag without it")
    return information
