"""`leanvla scene-qa`: pictures and clips of the tabletop scene, and questions with true answers."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from leanvla.errors import EnvironmentFault, UsageError
from sim.render import check_gl


@dataclass(frozen=True)
class SceneQa:
    """Draw a `scene_qa` data set. An interrupted one goes on where it stopped.

    Every scene gives about a dozen questions: does something exist (what is absent is chosen as in
    POPE: at random, by popularity, adversarially), how many, which colour, left, right, above or
    below; every clip of four frames one to three: what was moved, and in which order; every
    haystack of 4 to 32 frames one: what was seen in the only frame that shows it. Answers come from
    the simulator's segmentation. `heldout` and `train` never share a seed.

    To evaluate: `leanvla scene-qa`, then `leanvla vlm --tasks scene_qa,scene_clips`. To train:
    `leanvla scene-qa --split train --scenes 15000 --clips 3000 --needles 1500
    --out data/scene_qa/train`, then `leanvla train-vlm`.

    Attributes:
        split: `heldout` for evaluation, `train` for training.
        scenes: still pictures.
        clips: clips.
        needles: haystacks.
        workers: simulator processes; 0 means one per core.
        out: folder of the data set.
    """

    split: Literal["heldout", "train"] = "heldout"
    scenes: int = 200
    clips: int = 100
    needles: int = 48
    workers: int = 1
    out: Path = Path("data/scene_qa/heldout")


def run(config: SceneQa) -> int:
    """Draw, then print the counts as JSON; returns the exit code.

    Raises:
        UsageError: on values that ask for something impossible.
        EnvironmentFault: when this machine cannot render.
    """
    for name, least in (("scenes", 0), ("clips", 0), ("needles", 0), ("workers", 0)):
        if getattr(config, name) < least:
            raise UsageError(f"--{name} is {getattr(config, name)}: give {least} or more")
    if config.scenes + config.clips + config.needles == 0:
        raise UsageError("--scenes, --clips and --needles are 0: ask for at least one of them")
    print(json.dumps(draw(config), indent=2))
    return 0


def draw(config: SceneQa) -> dict[str, object]:
    """Draw the data set; returns what it holds.

    Raises:
        EnvironmentFault: when this machine cannot render.
    """
    from sim.scene_qa.dataset import split_of, write_dataset

    split = split_of(config.split, config.scenes, config.clips, config.needles)
    gl = check_gl()
    if not gl.ok:
        raise EnvironmentFault(f"{gl.problem}: {gl.remedy}")
    workers = config.workers or os.cpu_count() or 1
    return write_dataset(config.out, split, workers=workers, report=_report)


def _report(done: int, of: int) -> None:
    print(f"scene_qa: {done} of {of} parts", file=sys.stderr, flush=True)
