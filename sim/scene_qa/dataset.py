"""A `scene_qa` folder: pictures, masks, questions, hashes; written in parts, so it can go on.

    dataset.json     schema, split, seeds, picture size, counts, SHA-256 of the two lists
    questions.jsonl  one question a line: id, task (image | clip | needle), seed, seconds (null for
                     a picture), frames, kind, variant, question, answer, about (instances to look
                     at, per frame)
    frames.jsonl     one picture a line: file, mask, SHA-256 of both, instances by id
    images/, masks/  PNG; a mask's pixel is the id of an instance, 0 is background

A seed is a scene (or a clip), wherever and whenever it is drawn. Training and evaluation take their
seeds from ranges that never meet.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from sim.demos import EVAL_SEED_LIMIT, TRAIN_SEED_BASE, run_jobs
from sim.scene_qa.clips import ask_clip
from sim.scene_qa.needles import LENGTHS, VARIANTS, ask_needles, sample_needles
from sim.scene_qa.questions import ask
from sim.scene_qa.scenes import sample_clip, sample_scene
from sim.scene_qa.stage import IMAGE_SIZE, Stage
from sim.suites import make_suite

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from sim.scene_qa.questions import Question
    from sim.scene_qa.scenes import Scene
    from sim.scene_qa.stage import Shot
    from sim.suites.tabletop.suite import Tabletop

SCHEMA = "leanvla.scene_qa/1"
PART = 50
"""Seeds per part; a part is on disk whole or not at all."""

_TRIES = 100
_PNG_EFFORT = 4


class Drawn(NamedTuple):
    """What one seed gives: pictures in order of time, and questions about them."""

    shots: list[Shot]
    questions: list[Question]


@dataclass(frozen=True)
class Split:
    """Which seeds a folder holds: scenes from `first`, then clips, then haystacks with needles.

    Attributes:
        name: `heldout` or `train`.
        scenes: still pictures.
        clips: clips.
        needles: haystacks; their lengths take turns.
        first: first seed.
    """

    name: str
    scenes: int
    clips: int
    needles: int
    first: int

    @property
    def seeds(self) -> range:
        """All of them."""
        return range(self.first, self.first + self.scenes + self.clips + self.needles)

    def task(self, seed: int) -> str:
        """What a seed draws: `image`, `clip` or `needle`."""
        place = seed - self.first
        if place < self.scenes:
            return "image"
        return "clip" if place < self.scenes + self.clips else "needle"

    def parts(self) -> list[range]:
        """The seeds in stretches of `PART`."""
        return [self.seeds[i : i + PART] for i in range(0, len(self.seeds), PART)]


def split_of(name: str, scenes: int, clips: int, needles: int = 0) -> Split:
    """The split called `name`.

    Raises:
        ValueError: for an unknown name, or for more seeds than held-out evaluation owns.
    """
    if name not in ("heldout", "train"):
        raise ValueError(f"unknown split {name!r}: choose heldout or train")
    count = scenes + clips + needles
    if name == "heldout" and count > EVAL_SEED_LIMIT:
        raise ValueError(f"{count} seeds: held-out evaluation owns {EVAL_SEED_LIMIT}")
    return Split(name, scenes, clips, needles, 0 if name == "heldout" else TRAIN_SEED_BASE)


def write_dataset(
    out: Path, split: Split, *, workers: int = 1, report: Callable[[int, int], None] | None = None
) -> dict[str, Any]:
    """Draw what is missing of a split and write the folder.

    Args:
        out: the folder; parts that are there already are kept.
        split: what it holds.
        workers: simulator processes.
        report: called with parts done and parts in all.

    Returns:
        The content of `dataset.json`.

    Raises:
        ValueError: when the folder holds another split.
    """
    _check_same(out, split)
    for name in ("images", "masks", "parts"):
        (out / name).mkdir(parents=True, exist_ok=True)
    jobs = [(out, split, seeds) for seeds in split.parts()]
    for done, _ in enumerate(run_jobs(_write_part, jobs, workers), 1):
        if report:
            report(done, len(jobs))
    return _finish(out, split)


def draw_scene(stage: Stage, seed: int) -> Drawn:
    """The picture of a seed, and its questions: the first draw in which nothing is hidden."""
    for attempt in range(_TRIES):
        rng = np.random.default_rng([seed, 0, attempt])
        shot = stage.shoot(sample_scene(rng))
        if not shot.hidden:
            return Drawn([shot], ask(shot.seen, rng))
    raise RuntimeError(f"seed {seed}: the arm hides something in {_TRIES} draws")


def draw_clip(stage: Stage, seed: int) -> Drawn:
    """The frames of a seed's clip, and its questions."""
    for attempt in range(_TRIES):
        plan = sample_clip(np.random.default_rng([seed, 1, attempt]))
        shots = _shoot(stage, plan.scenes)
        questions = ask_clip(plan, shots)
        if questions:
            return Drawn(shots, questions)
    raise RuntimeError(f"seed {seed}: no clip can be seen in {_TRIES} draws")


def draw_needles(stage: Stage, seed: int, frames: int, variant: str) -> Drawn:
    """The frames of a seed's haystack, and its questions."""
    for attempt in range(_TRIES):
        plan = sample_needles(np.random.default_rng([seed, 2, attempt]), frames, variant)
        shots = _shoot(stage, plan.scenes)
        questions = ask_needles(plan, shots)
        if questions:
            return Drawn(shots, questions)
    raise RuntimeError(f"seed {seed}: no haystack can be seen in {_TRIES} draws")


def _shoot(stage: Stage, scenes: Sequence[Scene]) -> list[Shot]:
    """One picture per scene; a scene that goes on unchanged is rendered once."""
    shots: list[Shot] = []
    for number, scene in enumerate(scenes):
        still = number > 0 and scene is scenes[number - 1]
        shots.append(shots[-1] if still else stage.shoot(scene))
    return shots


def _draw(stage: Stage, split: Split, seed: int) -> Drawn:
    task = split.task(seed)
    if task == "needle":
        number = seed - split.first - split.scenes - split.clips
        lengths = LENGTHS[split.name]
        frames = lengths[number % len(lengths)]
        return draw_needles(stage, seed, frames, VARIANTS[number // len(lengths) % len(VARIANTS)])
    return (draw_clip if task == "clip" else draw_scene)(stage, seed)


_STAGES: dict[str, Stage] = {}


def _stage() -> Stage:
    if not _STAGES:
        suite: Tabletop = make_suite("tabletop", view_size=IMAGE_SIZE)  # type: ignore[assignment]
        _STAGES["tabletop"] = Stage(suite)
    return _STAGES["tabletop"]


def _write_part(job: tuple[Path, Split, range]) -> None:
    out, split, seeds = job
    path = _part(out, seeds)
    if path.exists():
        return
    frames: list[dict[str, Any]] = []
    questions: list[dict[str, Any]] = []
    for seed in seeds:
        drawn = _draw(_stage(), split, seed)
        rows = [_write_frame(out, f"{seed:07d}-{i}", shot) for i, shot in enumerate(drawn.shots)]
        frames += rows
        files = [row["file"] for row in rows]
        questions += _rows(seed, split.task(seed), files, drawn.questions)
    _write_text(path, json.dumps({"frames": frames, "questions": questions}))


def _rows(
    seed: int, task: str, files: Sequence[str], asked: Sequence[Question]
) -> Iterator[dict[str, Any]]:
    seconds = None if task == "image" else float(len(files))
    for number, question in enumerate(asked):
        row = asdict(question)
        row["question"] = row.pop("text")
        name = f"{seed:07d}-{number:02d}"
        facts = {"id": name, "task": task, "seed": seed, "seconds": seconds, "frames": files}
        yield facts | row


def _write_frame(out: Path, name: str, shot: Shot) -> dict[str, Any]:
    files = {"file": f"images/{name}.png", "mask": f"masks/{name}.png"}
    contents = {"file": _png(shot.image), "mask": _png(shot.mask)}
    for key, content in contents.items():
        (out / files[key]).write_bytes(content)
    hashes = {f"{key}_sha256": hashlib.sha256(c).hexdigest() for key, c in contents.items()}
    return files | hashes | {"instances": {str(i): n for i, n in shot.instances.items()}}


def _png(array: np.ndarray) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG", compress_level=_PNG_EFFORT)
    return buffer.getvalue()


def _part(out: Path, seeds: range) -> Path:
    return out / "parts" / f"{seeds[0]:07d}-{len(seeds)}.json"


def _finish(out: Path, split: Split) -> dict[str, Any]:
    """Join the parts; only now is the folder a data set."""
    parts = [json.loads(_part(out, s).read_text(encoding="utf-8")) for s in split.parts()]
    lists = {
        name: [row for part in parts for row in part[name]] for name in ("questions", "frames")
    }
    hashes = {}
    for name, rows in lists.items():
        text = "".join(json.dumps(row) + "\n" for row in rows)
        _write_text(out / f"{name}.jsonl", text)
        hashes[f"{name}_sha256"] = hashlib.sha256(text.encode()).hexdigest()
    kinds = [row["kind"] for row in lists["questions"]]
    facts = {
        "schema": SCHEMA,
        **_facts(split),
        "image_size": IMAGE_SIZE,
        "questions": {kind: kinds.count(kind) for kind in dict.fromkeys(kinds)},
        "frames": len(lists["frames"]),
        **hashes,
    }
    _write_text(out / "dataset.json", json.dumps(facts, indent=2) + "\n")
    return facts


def _facts(split: Split) -> dict[str, Any]:
    seeds = split.seeds
    return {
        "split": split.name,
        "scenes": split.scenes,
        "clips": split.clips,
        "needles": split.needles,
        "seeds": [seeds[0], seeds[-1]],
    }


def _check_same(out: Path, split: Split) -> None:
    path = out / "split.json"
    if path.exists():
        before = json.loads(path.read_text(encoding="utf-8"))
        if before != _facts(split):
            raise ValueError(f"{out} holds {before}, not {_facts(split)}: choose another folder")
    elif out.exists() and any(out.iterdir()):
        raise ValueError(f"{out} holds files of something else: choose another folder")
    out.mkdir(parents=True, exist_ok=True)
    _write_text(path, json.dumps(_facts(split)))


def _write_text(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)
