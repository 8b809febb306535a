"""MVBench (arXiv 2311.17005): twenty tasks that need time, videos of eleven data sets."""

from __future__ import annotations

from string import ascii_uppercase
from typing import TYPE_CHECKING, NamedTuple

from vlm.errors import TaskError
from vlm.files import need, published, read_json
from vlm.media import FrameFolder
from vlm.scoring.options import ask_options, score_option
from vlm.tasks.base import Task
from vlm.types import LETTER_ANSWER, Question
from vlm.video import Video

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from typing import Any

    from vlm.types import Media, ReadOptions


class Part(NamedTuple):
    """Where the videos of one task lie, and whether a question means a part of one."""

    folder: str
    bounded: bool = False
    frames_hz: float | None = None


WHERE = (
    "put MVBench's json files into DATA/mvbench/json/ and its videos into DATA/mvbench/video/ as "
    "they are unpacked (video/star/Charades_v1_480/ and so on)"
)
_CHARADES, _CLEVRER, _PERCEPTION = (
    "star/Charades_v1_480",
    "clevrer/video_validation",
    "perception/videos",
)
PARTS = {
    "action_sequence": Part(_CHARADES, bounded=True),
    "action_prediction": Part(_CHARADES, bounded=True),
    "action_antonym": Part("ssv2_video"),
    "fine_grained_action": Part("Moments_in_Time_Raw/videos"),
    "unexpected_action": Part("FunQA_test/test"),
    "object_existence": Part(_CLEVRER),
    "object_interaction": Part(_CHARADES, bounded=True),
    "object_shuffle": Part(_PERCEPTION),
    "moving_direction": Part(_CLEVRER),
    "action_localization": Part("sta/sta_video", bounded=True),
    "scene_transition": Part("scene_qa/video"),
    "action_count": Part(_PERCEPTION),
    "moving_count": Part(_CLEVRER),
    "moving_attribute": Part(_CLEVRER),
    "state_change": Part(_PERCEPTION),
    "fine_grained_pose": Part("nturgbd"),
    "character_order": Part(_PERCEPTION),
    "egocentric_navigation": Part("vlnqa"),
    "episodic_reasoning": Part("tvqa/frames_fps3_hq", bounded=True, frames_hz=3.0),
    "counterfactual_inference": Part(_CLEVRER),
}


def _read(root: Path, options: ReadOptions) -> list[Question]:
    """Every part whose file is there, or the one that `--split` names."""
    folder = root / "mvbench"
    if options.split and options.split not in PARTS:
        raise TaskError(
            f"unknown part {options.split!r} of mvbench: choose from {', '.join(PARTS)}"
        )
    names = [options.split] if options.split else list(PARTS)
    there = [name for name in names if (folder / "json" / f"{name}.json").exists()]
    if not there:
        need(folder / "json" / f"{names[0]}.json", WHERE)
    return [question for name in there for question in _part(folder, name, options.frames)]


def _part(folder: Path, name: str, frames: int) -> list[Question]:
    path = folder / "json" / f"{name}.json"
    with published(path):
        return [
            Question(
                id=f"{name}-{number}",
                prompt=f"{ask_options(row['question'], row['candidates'])}\n{LETTER_ANSWER}",
                media=_media(folder / "video", PARTS[name], row, frames),
                answers=(ascii_uppercase[_place(path, row)],),
                kind=name,
                options=tuple(row["candidates"]),
            )
            for number, row in enumerate(read_json(path))
        ]


def _media(videos: Path, part: Part, row: Mapping[str, Any], frames: int) -> Media:
    start_s, end_s = (float(row["start"]), float(row["end"])) if part.bounded else (0.0, None)
    where = videos / part.folder / row["video"]
    if part.frames_hz is not None:
        return FrameFolder(where, frames, part.frames_hz, start_s, end_s)
    return Video(where, frames, start_s, end_s)


def _place(path: Path, row: Mapping[str, Any]) -> int:
    if row["answer"] not in row["candidates"]:
        raise TaskError(f"{path}: {row['answer']!r} is none of {row['candidates']}")
    return list(row["candidates"]).index(row["answer"])


TASKS = (Task("mvbench", "twenty tasks that need time", WHERE, _read, score_option, video=True),)
