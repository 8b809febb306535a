"""POPE (arXiv 2305.10355): is an object in the picture? Absent ones are chosen three ways."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vlm.files import need, published, read_lines
from vlm.media import Pictures
from vlm.scoring.yes_no import score_pope, summarise_pope
from vlm.tasks.base import Task
from vlm.types import SHORT_ANSWER, Question

if TYPE_CHECKING:
    from pathlib import Path

    from vlm.types import ReadOptions

STRATEGIES = ("random", "popular", "adversarial")
WHERE = (
    "put POPE's coco_pope_random.json, coco_pope_popular.json, coco_pope_adversarial.json into "
    "DATA/pope/ and COCO's val2014 pictures into DATA/pope/val2014/"
)


def _read(root: Path, options: ReadOptions) -> list[Question]:
    folder = root / "pope"
    asked = [options.split] if options.split else list(STRATEGIES)
    questions = []
    for strategy in asked:
        path = need(folder / f"coco_pope_{strategy}.json", WHERE)
        with published(path):
            questions += [
                Question(
                    id=f"{strategy}-{row['question_id']}",
                    prompt=f"{row['text']}\n{SHORT_ANSWER}",
                    media=Pictures((folder / "val2014" / row["image"],)),
                    answers=(row["label"],),
                    kind=strategy,
                )
                for row in read_lines(path)
            ]
    return questions


TASKS = (
    Task("pope", "existence of objects in COCO pictures", WHERE, _read, score_pope, summarise_pope),
)
