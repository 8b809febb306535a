"""ChartQA (arXiv 2203.10244): charts, asked by people and by a machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vlm.files import need, published, read_json
from vlm.media import Pictures
from vlm.scoring.text import score_relaxed
from vlm.tasks.base import Task
from vlm.types import SHORT_ANSWER, Question

if TYPE_CHECKING:
    from pathlib import Path

    from vlm.types import ReadOptions

PARTS = ("human", "augmented")
WHERE = (
    "put ChartQA's test_human.json and test_augmented.json into DATA/chartqa/test/ and its "
    "pictures into DATA/chartqa/test/png/"
)


def _read(root: Path, options: ReadOptions) -> list[Question]:
    split = options.split or "test"
    folder = root / "chartqa" / split
    questions = []
    for part in PARTS:
        path = need(folder / f"{split}_{part}.json", WHERE)
        with published(path):
            questions += [
                Question(
                    id=f"{part}-{number}",
                    prompt=f"{row['query']}\n{SHORT_ANSWER}",
                    media=Pictures((folder / "png" / row["imgname"],)),
                    answers=(row["label"],),
                    kind=part,
                )
                for number, row in enumerate(read_json(path))
            ]
    return questions


TASKS = (Task("chartqa", "charts, numbers within 5 %", WHERE, _read, score_relaxed),)
