"""`scene_qa`, `scene_clips`, `needle`: drawn by `leanvla scene-qa`, with truth about places.

A folder is read only when its lists have the hashes that it states; a picture only when it has its
own.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from vlm.errors import MissingDataError, TaskError
from vlm.files import need, published, read_json, read_lines
from vlm.media import decode
from vlm.scoring.text import score_exact
from vlm.tasks.base import Task
from vlm.types import SHORT_ANSWER, Question, Truth

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from jaxtyping import UInt8
    from PIL.Image import Image

    from vlm.types import Judged, ReadOptions

SCHEMA = "leanvla.scene_qa/1"
WHERE = "draw it with `leanvla scene-qa --out DATA/scene_qa/heldout`"
USUAL_SPLIT = "heldout"
BESIDE = ("gripper",)
"""Instances that matter to a robot, whatever is asked."""


@dataclass(frozen=True)
class Frames:
    """Pictures and masks of one question, checked against their hashes."""

    folder: Path
    rows: tuple[Mapping[str, Any], ...]

    @property
    def count(self) -> int:
        """Pictures."""
        return len(self.rows)

    def load(self) -> list[Image]:
        """Decode the pictures."""
        return [decode(self._content(row, "file"), row["file"]) for row in self.rows]

    def mask(self, number: int) -> UInt8[np.ndarray, "h w"]:
        """Instance mask of one picture."""
        import io

        from PIL import Image

        content = self._content(self.rows[number], "mask")
        return np.asarray(Image.open(io.BytesIO(content)))

    def _content(self, row: Mapping[str, Any], key: str) -> bytes:
        path = self.folder / row[key]
        if not path.exists():
            raise MissingDataError(f"{path} is missing: {WHERE}")
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() != row[f"{key}_sha256"]:
            raise TaskError(f"{path} was changed after it was drawn: {WHERE} anew")
        return content


@dataclass(frozen=True)
class _MasksOf:
    frames: Frames

    def load(self, number: int) -> UInt8[np.ndarray, "h w"]:
        return self.frames.mask(number)


@dataclass(frozen=True)
class SceneSet:
    """A data set that was read: its facts, questions and frames as they are in the files."""

    folder: Path
    facts: dict[str, Any]
    questions: list[dict[str, Any]]
    frames: dict[str, dict[str, Any]]


def read_scene_set(folder: Path) -> SceneSet:
    """A folder of `leanvla scene-qa`.

    Raises:
        MissingDataError: when it is not there, or was not drawn to its end.
        TaskError: when it is of another schema, or was changed.
    """
    path = need(folder / "dataset.json", WHERE)
    facts = read_json(path)
    if not isinstance(facts, dict) or facts.get("schema") != SCHEMA:
        raise TaskError(f"{path} is not {SCHEMA}: {WHERE} anew")
    for name in ("questions", "frames"):
        content = need(folder / f"{name}.jsonl", WHERE).read_bytes()
        if hashlib.sha256(content).hexdigest() != facts.get(f"{name}_sha256"):
            raise TaskError(f"{folder / name}.jsonl was changed after it was drawn: {WHERE} anew")
    frames = {row["file"]: row for row in read_lines(folder / "frames.jsonl")}
    return SceneSet(folder, facts, read_lines(folder / "questions.jsonl"), frames)


def _read(root: Path, options: ReadOptions, *, task: str) -> list[Question]:
    data = read_scene_set(root / "scene_qa" / (options.split or USUAL_SPLIT))
    with published(data.folder / "questions.jsonl"):
        rows = [row for row in data.questions if row["task"] == task]
        return [_question(data, row) for row in rows]


def _question(data: SceneSet, row: Mapping[str, Any]) -> Question:
    frames = Frames(data.folder, tuple(data.frames[name] for name in row["frames"]))
    about = tuple(tuple(ids) for ids in row["about"])
    others = tuple(_others(frame["instances"]) for frame in frames.rows)
    return Question(
        id=row["id"],
        prompt=f"{row['question']}\n{SHORT_ANSWER}",
        media=frames,
        answers=(row["answer"],),
        kind=_kind(row),
        group=str(row["seed"]),
        seconds=row["seconds"],
        truth=Truth(_MasksOf(frames), about, others),
    )


def _kind(row: Mapping[str, Any]) -> str:
    by_variant = row["kind"] in ("existence", "needle")
    return f"{row['kind']} {row['variant']}" if by_variant else row["kind"]


def _others(instances: Mapping[str, str]) -> dict[str, tuple[int, ...]]:
    found = {name: tuple(int(i) for i, n in instances.items() if n == name) for name in BESIDE}
    return {name: ids for name, ids in found.items() if ids}


def _summarise(judged: Sequence[Judged]) -> dict[str, float]:
    """Existence as a whole; each strategy's negatives together with what is present, as in POPE."""
    by_kind: dict[str, list[float]] = {}
    for one in judged:
        by_kind.setdefault(one.question.kind, []).append(one.score)
    existence = {k: v for k, v in by_kind.items() if k.startswith("existence ")}
    if not existence:
        return {}
    present = existence.get("existence present", [])
    figures = {"existence": _mean([s for scores in existence.values() for s in scores])}
    for kind, scores in sorted(existence.items()):
        if kind != "existence present":
            figures[f"pope_{kind.split()[1]}"] = _mean(present + scores)
    return figures


def summarise_needles(judged: Sequence[Judged]) -> dict[str, float]:
    """Accuracy by variant and length of the context in seconds."""
    cells: dict[str, list[float]] = {}
    for one in judged:
        name = f"{one.question.kind.replace(' ', '_')}_{one.question.seconds or 0:g}s"
        cells.setdefault(name, []).append(one.score)
    return {name: _mean(scores) for name, scores in cells.items()}


def _mean(scores: Sequence[float]) -> float:
    return sum(scores) / len(scores)


TASKS = (
    Task(
        "scene_qa",
        "existence, counts, colours and relations in pictures of the tabletop suite",
        WHERE,
        partial(_read, task="image"),
        score_exact,
        _summarise,
    ),
    Task(
        "scene_clips",
        "which object was moved in four frames, and in which order",
        WHERE,
        partial(_read, task="clip"),
        score_exact,
        video=True,
    ),
    Task(
        "needle",
        "what was seen in the one frame of many that shows it",
        WHERE,
        partial(_read, task="needle"),
        score_exact,
        summarise_needles,
        video=True,
    ),
)
