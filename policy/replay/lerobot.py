"""LeRobotDataset folders, versions 2.1 and 3.0: parquet rows, and pictures in video or in the rows.

Only the description is version-dependent (`lerobot_meta.py`); rows and frames are read alike.
"""

from __future__ import annotations

import io
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from policy.replay.lerobot_meta import Meta, Row, read_meta
from policy.replay.types import ArrayEpisode, DamagedError, EpisodeInfo, Look, ReplayError, unnamed
from policy.replay.video import VideoFrames
from policy.types import ActionSpec, ObservationSpec

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_IMAGES = ("observation.images.", "observation.image.", "observation.")


def is_lerobot(path: Path) -> bool:
    """Whether `path` is a LeRobotDataset folder of whatever version."""
    return (path / "meta" / "info.json").is_file()


def count_lerobot(path: Path) -> int:
    """Episodes in the data set."""
    return len(read_meta(path).episodes)


def open_lerobot(path: Path, index: int, instruction: str | None = None) -> ArrayEpisode:
    """One episode of a LeRobotDataset.

    Args:
        path: the folder.
        index: the episode's number.
        instruction: words instead of the recorded task.

    Raises:
        ReplayError: on another version, with the converter's name; on an unknown episode.
        DamagedError: when a file is missing, or rows and frames do not agree in number.
    """
    meta = read_meta(path)
    row = meta.episode(index)
    table = _rows(meta, row)
    actions = _column(meta, table, "action")
    if actions is None:
        raise ReplayError(f"{path}: has no column `action`: nothing to compare with")
    states = _column(meta, table, "observation.state")
    frames = [_frames(meta, row, table, key) for key in meta.cameras]
    if not frames:
        raise ReplayError(f"{path}: has no camera: nothing to look at")
    info = _info(meta, row, actions, states)
    info = replace(info, instruction=instruction or info.instruction)
    if not info.instruction:
        raise ReplayError(f"{path}: says no task: give it with `--instruction`")

    def look(number: int) -> Look:
        images = tuple(np.ascontiguousarray(source[number]) for source in frames)
        return Look(images, None if states is None else states[number])

    stamps_s = np.asarray(table["timestamp"], np.float64) if "timestamp" in table else None
    return ArrayEpisode(info, actions, look, stamps_s)


def _info(meta: Meta, row: Row, actions: np.ndarray, states: np.ndarray | None) -> EpisodeInfo:
    names = meta.names("action") or unnamed(actions.shape[1], "action")
    state_names = meta.names("observation.state")
    if states is not None and not state_names:
        state_names = unnamed(states.shape[1], "state")
    extra = meta.extra
    return EpisodeInfo(
        name=f"{meta.root.name}, episode {row.number}",
        layout=f"lerobot {meta.version}",
        observation=ObservationSpec(tuple(map(view_name, meta.cameras)), state_names),
        action=ActionSpec(
            names,
            1,
            meta.fps,
            str(extra.get("rotation", "unknown")),
            str(extra.get("gripper", "unknown")),
        ),
        rate_hz=meta.fps,
        instruction=row.tasks[0] if row.tasks else "",
        steps=len(actions),
        duration_s=len(actions) / meta.fps,
        facts={"robot": meta.info.get("robot_type"), "tasks": list(row.tasks)},
    )


def view_name(key: str) -> str:
    """`observation.images.top` is the view `top`."""
    return next((key[len(stem) :] for stem in _IMAGES if key.startswith(stem)), key)


def _rows(meta: Meta, row: Row) -> dict[str, Any]:
    import pyarrow
    import pyarrow.parquet as parquet

    path = meta.data_path(row)
    if not path.is_file():
        raise DamagedError(f"{path}: rows are missing; fetch the data set again")
    try:
        table = parquet.read_table(path, filters=[("episode_index", "=", row.number)])
    except (pyarrow.ArrowException, OSError) as error:
        raise DamagedError(f"{path}: cannot be read as parquet ({error})") from None
    if table.num_rows != row.length:
        raise DamagedError(
            f"{path}: episode {row.number} has {table.num_rows} rows, its description says "
            f"{row.length}; fetch the data set again"
        )
    return {name: table[name].to_pylist() for name in table.column_names}


def _column(meta: Meta, table: dict[str, Any], name: str) -> np.ndarray | None:
    if name not in table:
        return None
    values = np.asarray(table[name], np.float32)
    if values.ndim == 1:
        values = values[:, None]
    named = meta.names(name)
    if named and len(named) != values.shape[1]:
        raise DamagedError(f"{meta.root}: {name} has {values.shape[1]} values, {len(named)} names")
    return values


def _frames(meta: Meta, row: Row, table: dict[str, Any], key: str) -> Any:
    if meta.features[key]["dtype"] == "image":
        return _EmbeddedFrames(f"{meta.root}, {key}", table[key])
    path, begin_s = meta.video(row, key)
    frames = VideoFrames(path, begin_s, row.length, meta.fps)
    frames.check()
    return frames


class _EmbeddedFrames:
    """Pictures that stand in the rows, as PNG or JPEG."""

    def __init__(self, where: str, cells: Sequence[Any]) -> None:
        self._where, self._cells = where, cells

    def __getitem__(self, number: int) -> np.ndarray:
        from PIL import Image

        data = (self._cells[number] or {}).get("bytes")
        if not data:
            raise DamagedError(f"{self._where}: row {number} holds no picture")
        try:
            with Image.open(io.BytesIO(data), formats=("PNG", "JPEG")) as image:
                return np.asarray(image.convert("RGB"))
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise DamagedError(f"{self._where}: row {number} cannot be decoded: {error}") from None
