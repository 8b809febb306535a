"""`scene_qa` as training batches: pictures, packed questions, and where everything is."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pruning.retention import patch_of_pixels
from vlm.errors import TaskError
from vlm.training.mini import GRID, IMAGE_SIZE
from vlm.training.sequence import Asked, Packed, Prefix, pack
from vlm.training.words import SPECIALS
from vlm.types import SHORT_ANSWER

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from jaxtyping import Float32, UInt8

    from vlm.tasks.scene_qa import SceneSet
    from vlm.training.recipe import Recipe, Stage

MOST_QUESTIONS = 16
KINDS = (
    *(f"{c} {s}" for c in ("red", "green", "blue", "yellow", "cyan") for s in ("cube", "cylinder")),
    "bin", "plate", "block",
)  # fmt: skip
CLASSES = len(KINDS) + 1
"""What can lie on a patch; class 0 is anything else."""

MOST_INSTANCES = 32
_PATCHES = patch_of_pixels((IMAGE_SIZE, IMAGE_SIZE), (GRID, GRID)).ravel()


class Batch(NamedTuple):
    """Samples of one task and one number of frames.

    Attributes:
        frames: pictures.
        packed: their questions.
        classes: share of every patch that each class covers.
        about: share of every patch that belongs to what each question is about.
    """

    frames: UInt8[np.ndarray, "b f h w 3"]
    packed: Packed
    classes: Float32[np.ndarray, "b f n c"]
    about: Float32[np.ndarray, "b q f n"]


@dataclass(frozen=True)
class Sample:
    """A picture, clip or haystack with all of its questions.

    Attributes:
        frames: rows of `frames.jsonl`.
        asked: questions as tokens.
        about: instances that each question is about, per frame.
    """

    frames: tuple[Mapping[str, object], ...]
    asked: tuple[Asked, ...]
    about: tuple[tuple[tuple[int, ...], ...], ...]


class SceneData:
    """All samples of a data set, by task and number of frames.

    Args:
        data: a data set that was read.
        encode: text to token ids, `<s>` included.

    Raises:
        TaskError: when there is nothing to learn from.
    """

    def __init__(self, data: SceneSet, encode: Callable[[str], Sequence[int]]) -> None:
        self.folder: Path = data.folder
        self.samples: dict[str, dict[int, list[Sample]]] = {}
        self.prefixes: dict[int, Prefix] = {}
        groups: dict[tuple[str, int], list[dict]] = {}
        for row in data.questions:
            groups.setdefault((row["task"], row["seed"]), []).append(row)
        seen: dict[tuple[str, int], Asked] = {}
        for (task, _), rows in groups.items():
            count = len(rows[0]["frames"])
            self.prefixes.setdefault(count, split_prompt("", count, encode)[0])
            asked = tuple(_asked(row, count, encode, seen) for row in rows)
            frames = tuple(data.frames[name] for name in rows[0]["frames"])
            about = tuple(tuple(map(tuple, row["about"])) for row in rows)
            by_length = self.samples.setdefault(task, {})
            by_length.setdefault(count, []).append(Sample(frames, asked, about))
        if not groups:
            raise TaskError(f"{data.folder} holds no question: draw it with `leanvla scene-qa`")

    def lengths(self) -> dict[str, list[int]]:
        """Numbers of frames that each task has."""
        return {task: sorted(by_length) for task, by_length in self.samples.items()}

    def batch(
        self, task: str, frames: int, count: int, text_tokens: int, rng: np.random.Generator
    ) -> Batch:
        """Some samples drawn by chance, each with its questions in an order of chance."""
        samples = self.samples[task][frames]
        chosen = [samples[i] for i in rng.integers(len(samples), size=count)]
        most = min(MOST_QUESTIONS, max(len(s.asked) for s in samples))
        parts = [self._part(sample, text_tokens, most, rng) for sample in chosen]
        pictures, packed, classes, about = zip(*parts, strict=True)
        return Batch(
            np.stack(pictures),
            Packed(*(np.stack(field) for field in zip(*packed, strict=True))),
            np.stack(classes),
            np.stack(about),
        )

    def _part(
        self, sample: Sample, text_tokens: int, most: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, Packed, np.ndarray, np.ndarray]:
        order = rng.permutation(len(sample.asked))
        packed = pack([sample.asked[i] for i in order], text_tokens, most, SPECIALS.index("<pad>"))
        covered = [_shares(self._png(str(row["mask"]))) for row in sample.frames]
        about = np.zeros((most, len(covered), GRID * GRID), np.float32)
        for number, question in enumerate(order[:most]):
            for frame, ids in enumerate(sample.about[question]):
                about[number, frame] = covered[frame][:, list(ids)].sum(1)
        classes = np.stack([_classes(*pair) for pair in zip(covered, sample.frames, strict=True)])
        pictures = np.stack([self._png(str(row["file"])) for row in sample.frames])
        return pictures, packed, classes, about

    def _png(self, name: str) -> np.ndarray:
        from PIL import Image

        return np.asarray(Image.open(io.BytesIO((self.folder / name).read_bytes())))


class Draw(NamedTuple):
    """What one step trains on."""

    task: str
    frames: int
    samples: int


def draw_of_step(
    recipe: Recipe, stage: Stage, lengths: Mapping[str, Sequence[int]], rng: np.random.Generator
) -> Draw:
    """A task by its share, a length by chance, and as many samples as give the stage's batch.

    Shares count frames, and a step of any task sees about as many.
    """
    short = {task: [n for n in have if n <= stage.batch] for task, have in lengths.items()}
    tasks = [task for task in recipe.shares if short.get(task)]
    shares = np.array([recipe.shares[task] for task in tasks])
    task = tasks[rng.choice(len(tasks), p=shares / shares.sum())]
    frames = int(rng.choice(short[task]))
    return Draw(task, frames, stage.batch // frames)


def split_prompt(
    question: str, frames: int, encode: Callable[[str], Sequence[int]]
) -> tuple[Prefix, tuple[int, ...]]:
    """Token ids of a prompt, cut behind its last picture.

    The text is what the chat template writes for a user's turn.
    """
    text = "USER: " + "<image>\n" * frames + f"{question} ASSISTANT:"
    ids = list(encode(text))
    pictures = [i for i, token in enumerate(ids) if token == SPECIALS.index("<image>")]
    cut = pictures[-1] + 1
    return Prefix(tuple(ids[:cut]), tuple(pictures)), tuple(ids[cut:])


def _asked(
    row: Mapping[str, str],
    frames: int,
    encode: Callable[[str], Sequence[int]],
    seen: dict[tuple[str, int], Asked],
) -> Asked:
    """A question as tokens; wording repeats, so each is encoded once."""
    key = (f"{row['question']}|{row['answer']}", frames)
    if key not in seen:
        _, question = split_prompt(f"{row['question']}\n{SHORT_ANSWER}", frames, encode)
        answer = encode(f" {row['answer']}")[1:]
        seen[key] = Asked(question, (*answer, SPECIALS.index("</s>")))
    return seen[key]


def _classes(
    covered: Float32[np.ndarray, "n i"], row: Mapping[str, object]
) -> Float32[np.ndarray, "n c"]:
    """Share of every patch that each class covers, from the shares of the instances."""
    names: Mapping[str, str] = row["instances"]  # type: ignore[assignment]
    classes = np.zeros((GRID * GRID, CLASSES), np.float32)
    for instance, name in names.items():
        if name in KINDS:
            classes[:, KINDS.index(name) + 1] += covered[:, int(instance)]
    classes[:, 0] = 1 - classes[:, 1:].sum(1)
    return classes


def _shares(mask: UInt8[np.ndarray, "h w"]) -> Float32[np.ndarray, "n i"]:
    """Share of every patch that each instance covers."""
    joint = np.bincount(
        _PATCHES * MOST_INSTANCES + mask.ravel(), minlength=GRID * GRID * MOST_INSTANCES
    )
    shares = joint.reshape(GRID * GRID, MOST_INSTANCES) / (IMAGE_SIZE // GRID) ** 2
    return shares.astype(np.float32)
