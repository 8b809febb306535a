"""ScienceQA-IMG (arXiv 2209.09513): school questions that come with a picture."""

from __future__ import annotations

from string import ascii_uppercase
from typing import TYPE_CHECKING

from vlm.files import need, published, read_json
from vlm.media import Pictures
from vlm.scoring.options import ask_options, score_option
from vlm.tasks.base import Task
from vlm.types import LETTER_ANSWER, Question

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from typing import Any

    from vlm.types import ReadOptions

USUAL_SPLIT = "test"
WHERE = (
    "put ScienceQA's problems.json and pid_splits.json into DATA/scienceqa/ and its pictures into "
    "DATA/scienceqa/images/test/ID/image.png"
)


def _read(root: Path, options: ReadOptions) -> list[Question]:
    """Questions without a picture are no part of ScienceQA-IMG."""
    folder, split = root / "scienceqa", options.split or USUAL_SPLIT
    path, splits = need(folder / "problems.json", WHERE), need(folder / "pid_splits.json", WHERE)
    with published(splits):
        ids = read_json(splits)[split]
    with published(path):
        problems = read_json(path)
        return [
            _question(number, problems[number], folder / "images" / split)
            for number in ids
            if problems[number]["image"]
        ]


def _question(number: str, row: Mapping[str, Any], pictures: Path) -> Question:
    asked = ask_options(row["question"], row["choices"])
    hint = f"Context: {row['hint']}\n" if row.get("hint") else ""
    return Question(
        id=number,
        prompt=f"{hint}{asked}\n{LETTER_ANSWER}",
        media=Pictures((pictures / number / row["image"],)),
        answers=(ascii_uppercase[row["answer"]],),
        kind=row.get("subject", ""),
        options=tuple(row["choices"]),
    )


TASKS = (Task("scienceqa", "school questions with a picture", WHERE, _read, score_option),)
