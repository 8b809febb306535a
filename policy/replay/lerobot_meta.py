"""What a LeRobotDataset says about itself, from `meta/`, in either version."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from policy.replay.types import DamagedError, ReplayError

if TYPE_CHECKING:
    from pathlib import Path

EXTRA_FILE = "leanvla.json"  # beside info.json, which other readers may check strictly
V21, V30 = "v2.1", "v3.0"
_CONVERTERS = {
    "v1": "lerobot/common/datasets/v2/convert_dataset_v1_to_v2.py",
    "v2.0": "lerobot/datasets/v21/convert_dataset_v20_to_v21.py",
}
_FIELD = re.compile(r"\{(\w+)(?::0?(\d*)d)?\}")


class Row(NamedTuple):
    """One episode of the data set.

    Attributes:
        where: placeholders of the path templates, and per camera the start within its video.
    """

    number: int
    length: int
    tasks: tuple[str, ...]
    where: dict[str, Any]


@dataclass(frozen=True)
class Meta:
    """A data set's description.

    Attributes:
        extra: what we add when we write one: rotation kind and gripper polarity.
    """

    root: Path
    version: str
    info: dict[str, Any]
    episodes: tuple[Row, ...]
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def fps(self) -> float:
        """Rows per second."""
        return float(self.info["fps"])

    @property
    def features(self) -> dict[str, Any]:
        """Columns by name."""
        return self.info["features"]

    @property
    def cameras(self) -> list[str]:
        """Columns that are pictures; depth is no colour picture and is left out."""
        return [
            key
            for key, feature in self.features.items()
            if feature["dtype"] in ("video", "image")
            and not (feature.get("info") or {}).get("is_depth_map")
        ]

    def names(self, column: str) -> tuple[str, ...]:
        """Names of a column's values; empty when it has none."""
        names = (self.features.get(column) or {}).get("names") or ()
        if isinstance(names, dict):
            names = next((v for v in names.values() if isinstance(v, list)), list(names))
        return tuple(map(str, names))

    def episode(self, index: int) -> Row:
        """The episode with this number.

        Raises:
            ReplayError: when there is none.
        """
        found = next((row for row in self.episodes if row.number == index), None)
        if found is None:
            raise ReplayError(f"{self.root}: episode {index} of {len(self.episodes)}: no such one")
        return found

    def data_path(self, row: Row) -> Path:
        """File with the rows of an episode."""
        where = {
            "chunk_index": row.where.get("data/chunk_index"),
            "file_index": row.where.get("data/file_index"),
            **row.where,
        }
        return self._inside(self.info["data_path"], where)

    def video(self, row: Row, key: str) -> tuple[Path, float]:
        """File with the frames of an episode, and where in it they begin, seconds."""
        where = {
            "video_key": key,
            "chunk_index": row.where.get(f"videos/{key}/chunk_index"),
            "file_index": row.where.get(f"videos/{key}/file_index"),
            **row.where,
        }
        begin_s = float(row.where.get(f"videos/{key}/from_timestamp") or 0.0)
        return self._inside(self.info["video_path"], where), begin_s

    def _inside(self, template: str, where: dict[str, Any]) -> Path:
        """Fill a path template by plain substitution, and refuse to leave the folder."""

        def fill(found: re.Match[str]) -> str:
            value = where.get(found[1])
            if value is None:
                raise DamagedError(f"{self.root}: the description of an episode lacks {found[1]}")
            return f"{value:0{found[2] or 0}d}" if isinstance(value, int) else str(value)

        path = (self.root / _FIELD.sub(fill, template)).resolve()
        if not path.is_relative_to(self.root.resolve()):
            raise ReplayError(f"{self.root}: {template!r} leads out of the data set: refused")
        return path


def read_meta(root: Path) -> Meta:
    """Read and check the description of a data set.

    Raises:
        ReplayError: on a version that is not read here, with its converter.
        DamagedError: when a part of it is missing or unreadable.
    """
    info = _json(root / "meta" / "info.json")
    version = str(info.get("codebase_version", "unknown"))
    if version not in (V21, V30):
        raise ReplayError(_refusal(root, version))
    missing = [k for k in ("fps", "features", "data_path") if k not in info]
    if missing or not isinstance(info["features"], dict):
        raise DamagedError(f"{root}/meta/info.json: lacks {', '.join(missing) or 'features'}")
    rows = _v21(root, info) if version == V21 else _v30(root)
    total = info.get("total_episodes")
    if total is not None and total != len(rows):
        raise DamagedError(
            f"{root}: info.json says {total} episodes, {len(rows)} are described; "
            "fetch the data set again"
        )
    extra = root / "meta" / EXTRA_FILE
    return Meta(root, version, info, tuple(rows), _json(extra) if extra.is_file() else {})


def _refusal(root: Path, version: str) -> str:
    converter = next((c for v, c in _CONVERTERS.items() if version.startswith(v)), None)
    what = f"{root}: LeRobotDataset {version}; {V21} and {V30} are read"
    if converter is None:
        return f"{what}: update LeanVLA, or write it again as {V30}"
    return f"{what}: convert it with {converter} of the lerobot repository"


def _v21(root: Path, info: dict[str, Any]) -> list[Row]:
    size = int(info.get("chunks_size", 1000))
    rows = []
    for line in _lines(root / "meta" / "episodes.jsonl"):
        index = int(line["episode_index"])
        where = {"episode_chunk": index // size, "episode_index": index}
        rows.append(Row(index, int(line["length"]), tuple(line.get("tasks", ())), where))
    return rows


def _v30(root: Path) -> list[Row]:
    import pyarrow
    import pyarrow.parquet as parquet

    paths = sorted((root / "meta" / "episodes").glob("*/*.parquet"))
    if not paths:
        raise DamagedError(f"{root}/meta/episodes: no episode is described; fetch it again")
    rows = []
    for path in paths:
        try:
            file = parquet.ParquetFile(path)
            names = [name for name in file.schema_arrow.names if not name.startswith("stats/")]
            found = file.read(columns=names).to_pylist()
        except (pyarrow.ArrowException, OSError) as error:
            raise DamagedError(f"{path}: cannot be read as parquet ({error})") from None
        rows += [
            Row(int(r["episode_index"]), int(r["length"]), tuple(r.get("tasks") or ()), r)
            for r in found
        ]
    return sorted(rows, key=lambda row: row.number)


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DamagedError(f"{path}: is missing; fetch the data set again") from None
    except ValueError as error:
        raise DamagedError(f"{path}: is not JSON ({error})") from None
    if not isinstance(value, dict):
        raise DamagedError(f"{path}: is not a JSON object")
    return value


def _lines(path: Path) -> list[dict[str, Any]]:
    try:
        text = path.read_text(encoding="utf-8")
        return [json.loads(line) for line in text.splitlines() if line.strip()]
    except FileNotFoundError:
        raise DamagedError(f"{path}: is missing; fetch the data set again") from None
    except ValueError as error:
        raise DamagedError(f"{path}: a line is not JSON ({error})") from None
