"""VQAv2 (arXiv 1612.00837): open questions about COCO pictures, ten answers each."""

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

USUAL_SPLIT = "val2014"
WHERE = (
    "put v2_OpenEnded_mscoco_val2014_questions.json and v2_mscoco_val2014_annotations.json into "
    "DATA/vqav2/ and COCO's val2014 pictures into DATA/vqav2/val2014/"
)


def _read(root: Path, options: ReadOptions) -> list[Question]:
    folder, split = root / "vqav2", options.split or USUAL_SPLIT
    asked = need(folder / f"v2_OpenEnded_mscoco_{split}_questions.json", WHERE)
    answered = need(folder / f"v2_mscoco_{split}_annotations.json", WHERE)
    with published(answered):
        notes = {row["question_id"]: row for row in read_json(answered)["annotations"]}
    with published(asked):
        return [
            Question(
                id=str(row["question_id"]),
                prompt=f"{row['question']}\n{SHORT_ANSWER}",
                media=Pictures((folder / split / f"COCO_{split}_{int(row['image_id']):012d}.jpg",)),
                answers=tuple(a["answer"] for a in notes[row["question_id"]]["answers"]),
                kind=notes[row["question_id"]]["answer_type"],
            )
            for row in read_json(asked)["questions"]
        ]


TASKS = (Task("vqav2", "open questions, ten answers each", WHERE, _read, score_vqa),)
