"""MME (arXiv 2306.13394): pairs of yes-no questions in fourteen parts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vlm.errors import TaskError
from vlm.files import need
from vlm.media import Pictures, find_file
from vlm.scoring.yes_no import COGNITION, PERCEPTION, mme_reading, score_mme, summarise_mme
from vlm.tasks.base import Task
from vlm.types import Question

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from vlm.types import ReadOptions

WHERE = (
    "unpack MME_Benchmark_release_version into DATA/mme/, one folder per part "
    "(DATA/mme/existence/ and so on)"
)
PICTURES = (".jpg", ".png", ".jpeg")


def _read(root: Path, options: ReadOptions) -> list[Question]:
    """A part holds pictures and texts side by side, or in `images` and `questions_answers_YN`."""
    folder = need(root / "mme", WHERE)
    parts = [options.split] if options.split else [*PERCEPTION, *COGNITION]
    there = [part for part in parts if (folder / part).is_dir()]
    if not there:
        need(folder / parts[0], WHERE)
    return [question for part in there for question in _part(folder / part)]


def _part(folder: Path) -> Iterator[Question]:
    texts, pictures = folder / "questions_answers_YN", folder / "images"
    texts, pictures = (
        (texts if texts.is_dir() else folder),
        (pictures if pictures.is_dir() else folder),
    )
    for path in sorted(texts.glob("*.txt")):
        picture = find_file(pictures, path.stem, PICTURES)
        lines = path.read_text(encoding="utf-8").splitlines()
        for number, line in enumerate(line for line in lines if line.strip()):
            text, tab, answer = line.rpartition("\t")
            if not tab or mme_reading(answer) == "other":
                raise TaskError(f"{path} is not in the published format: no answer in {line!r}")
            yield Question(
                id=f"{folder.name}-{path.stem}-{number}",
                prompt=text.strip(),
                media=Pictures((picture,)),
                answers=(mme_reading(answer),),
                kind=folder.name,
                group=f"{folder.name}-{path.stem}",
            )


TASKS = (
    Task("mme", "pairs of yes-no questions, in points", WHERE, _read, score_mme, summarise_mme),
)
