"""SEED-Bench (arXiv 2307.16125), its questions about pictures."""

from __future__ import annotations

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

WHERE = (
    "put SEED-Bench.json into DATA/seedbench/ and its pictures into "
    "DATA/seedbench/SEED-Bench-image/"
)


def _read(root: Path, options: ReadOptions) -> list[Question]:
    """Its questions about videos need three other data sets and are left out."""
    folder = root / "seedbench"
    path = need(folder / "SEED-Bench.json", WHERE)
    with published(path):
        data = read_json(path)
        kinds = {number: name for name, number in data["question_type"].items()}
        rows = [row for row in data["questions"] if row["data_type"] == "image"]
        return [_question(row, kinds, folder / "SEED-Bench-image") for row in rows]


def _question(row: Mapping[str, Any], kinds: Mapping[int, str], pictures: Path) -> Question:
    options = tuple(row[f"choice_{letter}"] for letter in "abcd")
    return Question(
        id=str(row["question_id"]),
        prompt=f"{ask_options(row['question'], options)}\n{LETTER_ANSWER}",
        media=Pictures((pictures / row["data_id"],)),
        answers=(row["answer"],),
        kind=kinds[row["question_type_id"]],
        options=options,
    )


TASKS = (Task("seedbench", "multiple choice about pictures", WHERE, _read, score_option),)
