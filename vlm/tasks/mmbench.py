"""MMBench (arXiv 2307.06281): multiple choice, asked again with rotated options."""

from __future__ import annotations

from string import ascii_uppercase
from typing import TYPE_CHECKING

from vlm.files import first_of, published, read_table
from vlm.media import Inline
from vlm.scoring.options import ask_options, score_option, summarise_circular
from vlm.tasks.base import Task
from vlm.types import LETTER_ANSWER, Question

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from vlm.types import ReadOptions

ROTATION = 1_000_000
"""Rows whose indices are equal up to a multiple of this are one question, rotated."""

FILES = ("mmbench_dev_20230712.tsv", "MMBench_DEV_EN.tsv", "mmbench_dev_en_20231003.tsv")
WHERE = f"put MMBench's {FILES[0]} (or {FILES[1]}) into DATA/mmbench/"
_EMPTY = ("", "nan", None)


def _read(root: Path, options: ReadOptions) -> list[Question]:
    names = (f"{options.split}.tsv",) if options.split else FILES
    path = first_of(root / "mmbench", names, WHERE)
    rows = read_table(path)
    with published(path):
        pictures = {row["index"]: row["image"] for row in rows}
        return [_question(row, pictures, path.name) for row in rows]


def _question(row: Mapping[str, str], pictures: Mapping[str, str], file: str) -> Question:
    options = [row[letter] for letter in ascii_uppercase[:5] if row.get(letter) not in _EMPTY]
    hint = row.get("hint")
    asked = ask_options(row["question"], options)
    text = asked if hint in _EMPTY else f"{hint}\n{asked}"
    # A rotated row may name the row that carries its picture.
    picture = pictures.get(row["image"], row["image"])
    return Question(
        id=row["index"],
        prompt=f"{text}\n{LETTER_ANSWER}",
        media=Inline(picture, f"{file}, index {row['index']}"),
        answers=(row["answer"],),
        kind=row.get("category", ""),
        group=str(int(row["index"]) % ROTATION),
        options=tuple(options),
    )


TASKS = (
    Task(
        "mmbench", "multiple choice with rotated options", WHERE, _read, score_option,
        summarise_circular,
    ),
)  # fmt: skip
