"""Needles: a small object that is there in one frame of many, and questions that need this frame.

`single` asks what was seen; `conditional` shows two needles, each beside another receptacle, and
asks for the one beside either; `threaded` shows up to three and asks what came after each. All
other frames hold receptacles only. Frames are one second apart.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sim.scene_qa.kinds import MOVABLES, Content
from sim.scene_qa.questions import Question
from sim.scene_qa.scenes import Scene, lay_out
from sim.suites.tabletop.layout import RECEPTACLES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sim.scene_qa.stage import Shot

VARIANTS = ("single", "conditional", "threaded")
LENGTHS = {"heldout": (4, 8, 16, 32), "train": (2, 3, 4, 6, 8, 16)}
"""Frames, which are also seconds."""

_THREAD = 3


class Ask(NamedTuple):
    """A question, the needle that is meant, and the frame that shows it."""

    text: str
    answer: str
    frame: int


@dataclass(frozen=True)
class NeedlePlan:
    """A haystack with its needles.

    Attributes:
        scenes: frames in order of time.
        variant: one of `VARIANTS`.
        asks: what is asked; one of several needles each.
    """

    scenes: tuple[Scene, ...]
    variant: str
    asks: tuple[Ask, ...]


def sample_needles(rng: np.random.Generator, frames: int, variant: str) -> NeedlePlan:
    """A haystack of so many frames (at least two)."""
    count = {"single": 1, "conditional": 2, "threaded": min(_THREAD, frames)}[variant]
    names = [MOVABLES[i] for i in rng.permutation(len(MOVABLES))[:count]]
    places = sorted(int(i) for i in rng.choice(frames, count, replace=False))
    stands = [_stands(rng, variant) for _ in range(frames)]
    if variant == "conditional":
        first, second = rng.permutation(RECEPTACLES)[:2]
        stands[places[0]], stands[places[1]] = (str(first),), (str(second),)
    contents = [
        Content((names[places.index(i)],) if i in places else (), stands[i]) for i in range(frames)
    ]
    marks = [stands[place][0] for place in places] if variant == "conditional" else names
    asks = tuple(_asks(variant, names, marks, places))
    return NeedlePlan(_film(rng, contents), variant, asks)


def ask_needles(plan: NeedlePlan, shots: Sequence[Shot]) -> list[Question]:
    """The questions of one haystack; none when anything cannot be seen."""
    if any(shot.hidden for shot in shots):
        return []
    return [_question(plan.variant, ask, shots) for ask in plan.asks]


def _asks(
    variant: str, names: Sequence[str], marks: Sequence[str], places: Sequence[int]
) -> Iterator[Ask]:
    if variant == "single":
        yield Ask("Which object was seen?", names[0], places[0])
    elif variant == "conditional":
        for name, mark, place in zip(names, marks, places, strict=True):
            yield Ask(f"Which object was seen with the {mark}?", name, place)
    else:
        for before, name, place in zip(names, names[1:], places[1:], strict=False):
            yield Ask(f"Which object was seen after the {before}?", name, place)


def _question(variant: str, ask: Ask, shots: Sequence[Shot]) -> Question:
    about: list[tuple[int, ...]] = [()] * len(shots)
    about[ask.frame] = tuple(s.instance for s in shots[ask.frame].seen if s.name == ask.answer)
    return Question("needle", variant, ask.text, ask.answer, tuple(about))


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
