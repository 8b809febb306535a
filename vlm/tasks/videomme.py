"""Video-MME (arXiv 2405.21075): multiple choice about videos from seconds to an hour."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from vlm.files import first_of, published, read_json, read_parquet
from vlm.media import find_file
from vlm.scoring.options import ask_options, score_option
from vlm.tasks.base import Task
from vlm.types import LETTER_ANSWER, Question
from vlm.video import Video

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from typing import Any

    from vlm.types import ReadOptions

FILES = ("test-00000-of-00001.parquet", "videomme/test-00000-of-00001.parquet", "videomme.json")
VIDEOS = (".mp4", ".MP4", ".mkv")
WHERE = (
    f"put Video-MME's {FILES[0]} into DATA/videomme/ and its videos, as videoID.mp4, into "
    "DATA/videomme/data/"
)
_LETTER = re.compile(r"^[A-Z][.)]\s*")


def _read(root: Path, options: ReadOptions) -> list[Question]:
    """`--split short`, `medium` or `long` takes videos of that length alone."""
    folder = root / "videomme"
    path = first_of(folder, FILES, WHERE)
    rows = read_json(path) if path.suffix == ".json" else read_parquet(path)
    with published(path):
        chosen = [row for row in rows if options.split in ("", row["duration"])]
        return [_question(row, folder / "data", options.frames) for row in chosen]


def _question(row: Mapping[str, Any], videos: Path, frames: int) -> Question:
    options = tuple(_LETTER.sub("", option) for option in row["options"])
    return Question(
        id=row["question_id"],
        prompt=f"{ask_options(row['question'], options)}\n{LETTER_ANSWER}",
        media=Video(find_file(videos, row["videoID"], VIDEOS), frames),
        answers=(row["answer"],),
        kind=row["duration"],
        options=options,
    )


TASKS = (Task("videomme", "videos, multiple choice", WHERE, _read, score_option, video=True),)
