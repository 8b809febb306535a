"""Needles: a small object that is there in one frame of many, and questions that need this frame.

`single` asks what was seen; `conditional` shows two needles, each beside another receptacle, and
asks for the one beside a given receptacle; `threaded` shows up to three and asks what came after a
given one. All other frames hold receptacles only. Frames are one second apart.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from sim.scene_qa.kinds import MOVABLES, Content
from sim.scene_qa.questions import Question
from sim.scene_qa.scenes import Scene, lay_out
from sim.suites.tabletop.layout import RECEPTACLES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sim.scene_qa.stage import Shot

VARIANTS = ("single", "conditional", "threaded")
LENGTHS = {"heldout": (4, 8, 16, 32), "train": (2, 3, 4, 6, 8)}
"""Frames, which are also seconds."""

_THREAD = 3


@dataclass(frozen=True)
class NeedlePlan:
    """A haystack with its needles.

    Attributes:
        scenes: frames in order of time.
        variant: one of `VARIANTS`.
        text: what is asked.
        answer: name of the needle that is meant.
        frame: where it is.
    """

    scenes: tuple[Scene, ...]
    variant: str
    text: str
    answer: str
    frame: int


def sample_needles(rng: np.random.Generator, frames: int, variant: str) -> NeedlePlan:
    """A haystack of so many frames (at least two)."""
    count = {"single": 1, "conditional": 2, "threaded": min(_THREAD, frames)}[variant]
    names = [MOVABLES[i] for i in rng.permutation(len(MOVABLES))[:count]]
    places = sorted(int(i) for i in rng.choice(frames, count, replace=False))
    stands = [_stands(rng, variant) for _ in range(frames)]
    asked = int(rng.integers(max(1, count - 1)) if variant == "threaded" else rng.integers(count))
    if variant == "conditional":
        first, second = rng.permutation(RECEPTACLES)[:2]
        stands[places[0]], stands[places[1]] = (str(first),), (str(second),)
    contents = [
        Content((names[places.index(i)],) if i in places else (), stands[i]) for i in range(frames)
    ]
    target = asked + 1 if variant == "threaded" and count > 1 else asked
    text = "Which object was seen?"
    if variant == "conditional":
        text = f"Which object was seen with the {stands[places[asked]][0]}?"
    if variant == "threaded":
        text = f"Which object was seen after the {names[asked]}?"
    scenes = _film(rng, contents)
    return NeedlePlan(scenes, variant, text, names[target], places[target])


def ask_needles(plan: NeedlePlan, shots: Sequence[Shot]) -> list[Question]:
    """The question of one haystack; none when anything cannot be seen."""
    if any(shot.hidden for shot in shots):
        return []
    about: list[tuple[int, ...]] = [()] * len(shots)
    about[plan.frame] = tuple(s.instance for s in shots[plan.frame].seen if s.name == plan.answer)
    return [Question("needle", plan.variant, plan.text, plan.answer, tuple(about))]


def _stands(rng: np.random.Generator, variant: str) -> tuple[str, ...]:
    if variant == "conditional":
        return (str(rng.choice(RECEPTACLES)),)
    return tuple(name for name in RECEPTACLES if rng.random() < 0.5)


def _film(rng: np.random.Generator, contents: Sequence[Content]) -> tuple[Scene, ...]:
    """Scenes under one light, on one table, with the arm at rest."""
    scenes = [lay_out(rng, content) for content in contents]
    first = scenes[0].layout
    return tuple(
        replace(
            scene,
            layout=replace(
                scene.layout,
                light_dir=first.light_dir,
                diffuse=first.diffuse,
                ambient=first.ambient,
                arm=first.arm,
                rgb={**scene.layout.rgb, "table": first.rgb["table"]},
            ),
        )
        for scene in scenes
    )
