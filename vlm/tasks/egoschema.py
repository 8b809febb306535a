"""EgoSchema (arXiv 2308.09126): three minutes seen from one's own eyes, five choices."""

from __future__ import annotations

from string import ascii_uppercase
from typing import TYPE_CHECKING

from vlm.files import need, published, read_json
from vlm.scoring.options import ask_options, score_option
from vlm.tasks.base import Task
from vlm.types import LETTER_ANSWER, Question
from vlm.video import Video

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from typing import Any

    from vlm.types import ReadOptions

CHOICES = 5
WHERE = (
    "put EgoSchema's questions.json and subset_answers.json into DATA/egoschema/ and its videos "
    "into DATA/egoschema/videos/"
)


def _read(root: Path, options: ReadOptions) -> list[Question]:
    """Only the subset whose answers are public."""
    folder = root / "egoschema"
    path, key = need(folder / "questions.json", WHERE), need(folder / "subset_answers.json", WHERE)
    with published(path):
        answers = read_json(key)
        rows = [row for row in read_json(path) if row["q_uid"] in answers]
        return [_question(row, answers[row["q_uid"]], folder, options.frames) for row in rows]


def _question(row: Mapping[str, Any], answer: int, folder: Path, frames: int) -> Question:
    options = tuple(row[f"option {i}"] for i in range(CHOICES))
    return Question(
        id=row["q_uid"],
        prompt=f"{ask_options(row['question'], options)}\n{LETTER_ANSWER}",
        media=Video(folder / "videos" / f"{row['q_uid']}.mp4", frames),
        answers=(ascii_uppercase[int(answer)],),
        options=options,
    )


TASKS = (Task("egoschema", "long first-person videos", WHERE, _read, score_option, video=True),)
