"""What a task asks, and what it asks about. Pictures are loaded only when they are needed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jaxtyping import UInt8
    from numpy import ndarray
    from PIL.Image import Image

SHORT_ANSWER = "Answer the question using a single word or phrase."
LETTER_ANSWER = "Answer with the option's letter from the given choices directly."


class Media(Protocol):
    """Pictures of one question: one, several, or the sampled frames of a video."""

    @property
    def count(self) -> int:
        """How many pictures `load` gives at most."""
        ...

    def load(self) -> list[Image]:
        """RGB pictures in order.

        Raises:
            MissingDataError: when a file is not there.
            TaskError: when a file is damaged.
        """
        ...


@dataclass(frozen=True)
class Truth:
    """Where the things that a question is about are, picture by picture.

    Attributes:
        masks: reads the instance mask of a picture.
        about: instances to look at, per picture.
        others: instances that matter beside them, by what they are (`gripper`).
    """

    masks: Masks
    about: tuple[tuple[int, ...], ...]
    others: tuple[Mapping[str, tuple[int, ...]], ...] = ()


class Masks(Protocol):
    """Instance masks of the pictures of one question."""

    def load(self, number: int) -> UInt8[ndarray, "h w"]:
        """The mask of picture `number`."""
        ...


@dataclass(frozen=True)
class Question:
    """One question.

    Attributes:
        id: unique within its task.
        prompt: all that is said to the model beside the pictures.
        media: the pictures.
        answers: what is right: one reference, or every annotator's.
        kind: category of the benchmark.
        group: questions that are judged together (MME's pairs, MMBench's rotations).
        options: texts of the choices, in the order of their letters.
        seconds: length of the video, where there is one.
        truth: where things are, where that is known.
    """

    id: str
    prompt: str
    media: Media
    answers: tuple[str, ...]
    kind: str = ""
    group: str = ""
    options: tuple[str, ...] = ()
    seconds: float | None = None
    truth: Truth | None = None


@dataclass(frozen=True)
class Judged:
    """An answer with its score, as the summary of a task sees it.

    Attributes:
        question: what was asked.
        answer: what the model said.
        score: 0 wrong to 1 right.
    """

    question: Question
    answer: str
    score: float


@dataclass(frozen=True)
class ReadOptions:
    """How a task is read.

    Attributes:
        split: the benchmark's own name of a part; its usual one when empty.
        frames: frames taken of a video.
    """

    split: str = ""
    frames: int = 8
