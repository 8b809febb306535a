"""GQA (arXiv 1902.09506): compositional questions about Visual Genome pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vlm.files import need, published, read_json
from vlm.media import Pictures
from vlm.scoring.text import score_exact
from vlm.tasks.base import Task
from vlm.types import SHORT_ANSWER, Question

if TYPE_CHECKING:
    from pathlib import Path

    from vlm.types import ReadOptions

USUAL_SPLIT = "testdev_balanced"
WHERE = (
    "put GQA's testdev_balanced_questions.json into DATA/gqa/ and its pictures into "
    "DATA/gqa/images/"
)


def _read(root: Path, options: ReadOptions) -> list[Question]:
    folder = root / "gqa"
    path = need(folder / f"{options.split or USUAL_SPLIT}_questions.json", WHERE)
    with published(path):
        return [
            Question(
                id=number,
                prompt=f"{row['question']}\n{SHORT_ANSWER}",
                media=Pictures((folder / "images" / f"{row['imageId']}.jpg",)),
                answers=(row["answer"],),
                kind=row.get("types", {}).get("structural", ""),
            )
            for number, row in read_json(path).items()
        ]


TASKS = (Task("gqa", "compositional questions", WHERE, _read, score_exact),)
