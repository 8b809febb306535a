"""TextVQA (arXiv 1904.08920): questions that need the text in the picture, ten answers each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vlm.files import need, published, read_json
from vlm.media import Pictures
from vlm.scoring.vqa import score_vqa
from vlm.tasks.base import Task
from vlm.types import SHORT_ANSWER, Question

if TYPE_CHECKING:
    from pathlib import Path

    from vlm.types import ReadOptions

USUAL_SPLIT = "val"
WHERE = (
    "put TextVQA_0.5.1_val.json into DATA/textvqa/ and the pictures of its train_val set into "
    "DATA/textvqa/train_images/"
)


def _read(root: Path, options: ReadOptions) -> list[Question]:
    folder = root / "textvqa"
    path = need(folder / f"TextVQA_0.5.1_{options.split or USUAL_SPLIT}.json", WHERE)
    with published(path):
        return [
            Question(
                id=str(row["question_id"]),
                prompt=f"{row['question']}\n{SHORT_ANSWER}",
                media=Pictures((folder / "train_images" / f"{row['image_id']}.jpg",)),
                answers=tuple(row["answers"]),
            )
            for row in read_json(path)["data"]
        ]


TASKS = (Task("textvqa", "text in pictures, ten answers each", WHERE, _read, score_vqa),)
