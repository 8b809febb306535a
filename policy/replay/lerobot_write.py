"""Writing LeRobotDataset v3.0: parquet rows, and pictures as video or lossless in the rows.

Every episode gets files of its own, which the format allows; readers find them by the episodes'
description. Statistics are written for the whole data set.
"""

from __future__ import annotations

import json
import os
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from policy.replay.lerobot_meta import EXTRA_FILE, V30
from policy.replay.lerobot_stats import Stats
from policy.replay.types import ReplayError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from policy.replay.frames import FrameRow
    from policy.replay.types import EpisodeInfo

Pictures = Literal["video", "png"]

FILES_PER_CHUNK = 1000
_PLACE = "chunk-{chunk_index:03d}/file-{file_index:03d}"
_COUNTERS = {"timestamp": "float32", "frame_index": "int64", "episode_index": "int64"}
_COUNTERS |= {"index": "int64", "task_index": "int64"}


class LeRobotWriter:
    """Writes one data set, episode by episode; `close` writes its description.

    Args:
        root: the folder; must not exist, or be empty.
        fps: rows per second.
        pictures: `video` (H.264, small, lossy) or `png` (in the rows, lossless).
        robot: name of the robot, for the description.
    """

    def __init__(
        self, root: Path, fps: float, pictures: Pictures = "video", robot: str | None = None
    ) -> None:
        self.root, self.fps, self.pictures, self.robot = root, fps, pictures, robot
        self._features: dict[str, Any] = {}
        self._extra: dict[str, str] = {}
        self._tasks: dict[str, int] = {}
        self._episodes: list[dict[str, Any]] = []
        self._frames = 0
        self._stats = Stats()

    def add(self, info: EpisodeInfo, rows: Iterable[FrameRow]) -> int:
        """Write one episode; gives its number of rows.

        Raises:
            ReplayError: when it has no row, other values than the episodes before, or pictures of
                an odd size for video.
        """
        number = len(self._episodes)
        keys = [camera_key(view) for view in info.observation.views]
        cells: dict[str, list[Any]] = {"action": [], "observation.state": []}
        cells |= {key: [] for key in keys}
        videos: dict[str, _Video] = {}
        for row in rows:
            if not cells["action"]:
                self._declare(info, row)
                if self.pictures == "video":
                    videos = {
                        key: _Video(self._path("videos", key, number), self.fps) for key in keys
                    }
            cells["action"].append(row.action)
            if row.look.state is not None:
                cells["observation.state"].append(row.look.state)
            for key, image in zip(keys, row.look.images, strict=True):
                self._stats.picture(key, image)
                if key in videos:
                    videos[key].add(image)
                else:
                    cells[key].append({"bytes": _png(image), "path": None})
        if not cells["action"]:
            raise ReplayError(f"{info.name}: has no row to write")
        for video in videos.values():
            video.close()
        self._write_rows(info, cells, number)
        return len(cells["action"])

    @property
    def lengths(self) -> list[int]:
        """Rows of every episode so far."""
        return [row["length"] for row in self._episodes]

    def close(self) -> None:
        """Write the description; before that, the folder is no data set."""
        import pyarrow as pa
        import pyarrow.parquet as parquet

        if not self._episodes:
            raise ReplayError(f"{self.root}: no episode was written")
        path = self.root / "meta" / "episodes" / "chunk-000" / "file-000.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        parquet.write_table(pa.Table.from_pylist(self._episodes), path)
        self._write_tasks()
        _write_json(self.root / "meta" / "stats.json", self._stats.summary())
        _write_json(self.root / "meta" / EXTRA_FILE, self._extra)
        _write_json(self.root / "meta" / "info.json", self._info())

    def _declare(self, info: EpisodeInfo, row: FrameRow) -> None:
        features: dict[str, Any] = {}
        for view, image in zip(info.observation.views, row.look.images, strict=True):
            features[camera_key(view)] = self._picture_feature(info, image)
        if row.look.state is not None:
            features["observation.state"] = _vector(info.observation.state_names)
        features["action"] = _vector(info.action.names)
        for name, kind in _COUNTERS.items():
            features[name] = {"dtype": kind, "shape": [1], "names": None}
        if self._features and features != self._features:
            raise ReplayError(
                f"{info.name}: other views, sizes or values than the episodes before it; write it "
                "to a data set of its own"
            )
        self._features = features
        self._extra = {"rotation": info.action.rotation, "gripper": info.action.gripper}

    def _picture_feature(self, info: EpisodeInfo, image: np.ndarray) -> dict[str, Any]:
        height, width = image.shape[:2]
        feature: dict[str, Any] = {
            "dtype": "video" if self.pictures == "video" else "image",
            "shape": [height, width, 3],
            "names": ["height", "width", "channels"],
        }
        if self.pictures == "png":
            return feature
        if height % 2 or width % 2:
            raise ReplayError(
                f"{info.name}: pictures are {width} x {height}, video needs even edges: "
                "write them with `--pictures png`"
            )
        feature["info"] = {
            "video.height": height,
            "video.width": width,
            "video.codec": "h264",
            "video.pix_fmt": "yuv420p",
            "video.is_depth_map": False,
            "video.fps": self.fps,
            "video.channels": 3,
            "has_audio": False,
        }
        return feature

    def _write_rows(self, info: EpisodeInfo, cells: dict[str, list[Any]], number: int) -> None:
        import pyarrow as pa
        import pyarrow.parquet as parquet

        count = len(cells["action"])
        task = self._tasks.setdefault(info.instruction, len(self._tasks))
        columns: dict[str, Any] = {}
        for name in self._features:
            if name in _COUNTERS:
                continue
            if self._features[name]["dtype"] == "image":
                kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
                columns[name] = pa.array(cells[name], kind)
            elif self._features[name]["dtype"] == "float32":
                columns[name] = _vectors(np.array(cells[name], np.float32))
                self._stats.vectors(name, np.array(cells[name], np.float64))
        order = np.arange(count)
        counters = {
            "timestamp": (order / self.fps).astype(np.float32),
            "frame_index": order,
            "episode_index": np.full(count, number),
            "index": order + self._frames,
            "task_index": np.full(count, task),
        }
        for name, values in counters.items():
            columns[name] = pa.array(values, _COUNTERS[name])
            self._stats.vectors(name, values.astype(np.float64)[:, None])
        path = self._path("data", "", number)
        parquet.write_table(pa.table(columns), path)
        self._describe(info, number, count)

    def _describe(self, info: EpisodeInfo, number: int, count: int) -> None:
        chunk, file = divmod(number, FILES_PER_CHUNK)
        row: dict[str, Any] = {
            "episode_index": number,
            "tasks": [info.instruction],
            "length": count,
            "data/chunk_index": chunk,
            "data/file_index": file,
            "dataset_from_index": self._frames,
            "dataset_to_index": self._frames + count,
            "meta/episodes/chunk_index": 0,
            "meta/episodes/file_index": 0,
        }
        for key, feature in self._features.items():
            if feature["dtype"] == "video":
                row[f"videos/{key}/chunk_index"] = chunk
                row[f"videos/{key}/file_index"] = file
                row[f"videos/{key}/from_timestamp"] = 0.0
                row[f"videos/{key}/to_timestamp"] = count / self.fps
        self._episodes.append(row)
        self._frames += count

    def _path(self, kind: str, key: str, number: int) -> Path:
        chunk, file = divmod(number, FILES_PER_CHUNK)
        suffix = ".parquet" if kind == "data" else ".mp4"
        path = self.root / kind / key / (_PLACE.format(chunk_index=chunk, file_index=file) + suffix)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def _write_tasks(self) -> None:
        import pyarrow as pa
        import pyarrow.parquet as parquet

        table = pa.table(
            {"task_index": pa.array(self._tasks.values(), pa.int64()), "task": list(self._tasks)}
        )
        # Readers use pandas and look tasks up by its index; these are pandas' words for that.
        described = {
            "index_columns": ["task"],
            "column_indexes": [],
            "columns": [
                _pandas_column("task_index", "int64", "int64"),
                _pandas_column("task", "unicode", "object"),
            ],
            "pandas_version": "2.0.0",
        }
        table = table.replace_schema_metadata({"pandas": json.dumps(described)})
        parquet.write_table(table, self.root / "meta" / "tasks.parquet")

    def _info(self) -> dict[str, Any]:
        whole = int(self.fps) if float(self.fps).is_integer() else self.fps
        return {
            "codebase_version": V30,
            "robot_type": self.robot,
            "total_episodes": len(self._episodes),
            "total_frames": self._frames,
            "total_tasks": len(self._tasks),
            "chunks_size": FILES_PER_CHUNK,
            "data_files_size_in_mb": 100,
            "video_files_size_in_mb": 200,
            "fps": whole,
            "splits": {"train": f"0:{len(self._episodes)}"},
            "data_path": f"data/{_PLACE}.parquet",
            "video_path": f"videos/{{video_key}}/{_PLACE}.mp4" if self._videos else None,
            "features": self._features,
        }

    @property
    def _videos(self) -> bool:
        return any(feature["dtype"] == "video" for feature in self._features.values())


class _Video:
    """One H.264 file: two frames per group, so that any frame is near a key frame."""

    def __init__(self, path: Path, fps: float) -> None:
        import av

        self._rate = Fraction(fps).limit_denominator(1000)
        self._container: Any = av.open(str(path), "w", format="mp4")
        self._stream: Any = None

    def add(self, image: np.ndarray) -> None:
        import av

        if self._stream is None:
            options = {"crf": "18", "g": "2", "bf": "0"}
            self._stream = self._container.add_stream("libx264", rate=self._rate, options=options)
            self._stream.pix_fmt, self._stream.thread_count = "yuv420p", 1
            self._stream.height, self._stream.width = image.shape[:2]
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
        self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        self._container.mux(self._stream.encode())
        self._container.close()


def camera_key(view: str) -> str:
    """`top` is the column `observation.images.top`; a name in the format has no slash."""
    return f"observation.images.{view.replace('/', '_')}"


def _vector(names: Sequence[str]) -> dict[str, Any]:
    return {"dtype": "float32", "shape": [len(names)], "names": list(names)}


def _vectors(values: np.ndarray) -> Any:
    import pyarrow as pa

    flat = pa.array(np.ascontiguousarray(values).reshape(-1), pa.float32())
    return pa.FixedSizeListArray.from_arrays(flat, values.shape[1])


def _png(image: np.ndarray) -> bytes:
    import io

    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def _pandas_column(name: str, pandas: str, numpy: str) -> dict[str, Any]:
    return {
        "name": name,
        "field_name": name,
        "pandas_type": pandas,
        "numpy_type": numpy,
        "metadata": None,
    }


def _write_json(path: Path, value: object) -> None:
    part = path.with_name(f".{path.name}.part")
    part.write_text(json.dumps(value, indent=4, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(part, path)
