"""Questions about one picture, from what is seen in it. Wording is fixed, answers are short."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from sim.scene_qa.kinds import COLOURS, NAMES, habits
from sim.suites.tabletop.layout import SHAPES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sim.scene_qa.stage import Seen

STRATEGIES = ("random", "popular", "adversarial")
"""How POPE chooses what to ask for that is not there."""

PRESENT_ASKED = 3
COUNTS_ASKED = 3
COLOURS_ASKED = 2
RELATIONS_ASKED = 3
_LEADING = 3
_MARGIN = 0.05
"""Two objects nearer than this share of the picture are neither left nor right of each other."""

SIDES = {"left of": (0, 1.0), "right of": (0, -1.0), "above": (1, 1.0), "below": (1, -1.0)}


@dataclass(frozen=True)
class Question:
    """One question with its answer.

    Attributes:
        kind: `existence`, `count`, `colour`, `relation`; of clips `moved`, `order`.
        variant: how it was chosen: a POPE strategy or `present`, a side, and the like.
        text: what is asked.
        answer: what is right, in lower case.
        about: instances that one must look at, per frame.
    """

    kind: str
    variant: str
    text: str
    answer: str
    about: tuple[tuple[int, ...], ...]


def ask(seen: Sequence[Seen], rng: np.random.Generator) -> list[Question]:
    """All questions of one picture."""
    questions = [
        *_existence(seen, rng),
        *_counts(seen, rng),
        *_some(list(_colours(seen)), COLOURS_ASKED, rng),
        *_relations(seen, rng),
    ]
    return list(dict.fromkeys(questions))


def _existence(seen: Sequence[Seen], rng: np.random.Generator) -> Iterator[Question]:
    """As many absent things as present ones, one by each strategy."""
    there = {one.name for one in seen}
    for name in _some(sorted(there), PRESENT_ASKED, rng):
        about = tuple(one.instance for one in seen if one.name == name)
        yield _exists(name, "present", "yes", about)
    absent = [name for name in NAMES if name not in there]
    if absent:
        for strategy in STRATEGIES:
            yield _exists(_absent(strategy, absent, there, rng), strategy, "no", ())


def _exists(name: str, variant: str, answer: str, about: tuple[int, ...]) -> Question:
    return Question("existence", variant, f"Is there a {name} in the picture?", answer, (about,))


def _absent(strategy: str, absent: list[str], there: set[str], rng: np.random.Generator) -> str:
    """A name that is not there: any, or one of the three that rank highest."""
    if strategy == "random":
        return absent[rng.integers(len(absent))]
    world = habits()
    score = world.frequency
    if strategy == "adversarial":
        score = world.together[[NAMES.index(name) for name in sorted(there)]].sum(0)
    ranked = sorted(absent, key=lambda name: -score[NAMES.index(name)])[:_LEADING]
    return ranked[rng.integers(len(ranked))]


def _counts(seen: Sequence[Seen], rng: np.random.Generator) -> Iterator[Question]:
    """How many of a shape or a colour; colours that are there are asked for more often."""
    there = sorted({one.colour for one in seen if one.colour})
    asked = [(f"{shape}s", "shape") for shape in SHAPES]
    colours = [*there, *there, *COLOURS]
    asked += [(f"{colours[i]} objects", "colour") for i in rng.permutation(len(colours))[:3]]
    for things, variant in _some(list(dict.fromkeys(asked)), COUNTS_ASKED, rng):
        word = things.removesuffix(" objects").removesuffix("s")
        about = tuple(one.instance for one in seen if word in (one.colour, one.shape))
        text = f"How many {things} are there?"
        yield Question("count", variant, text, str(len(about)), (about,))


def _colours(seen: Sequence[Seen]) -> Iterator[Question]:
    for shape in SHAPES:
        alike = sorted((one for one in seen if one.shape == shape), key=lambda one: one.u)
        if len(alike) == 1:
            text = f"What colour is the {shape}?"
            yield Question("colour", "only", text, alike[0].colour, ((alike[0].instance,),))
        for side, order in (("left", alike), ("right", alike[::-1])):
            if len(alike) > 1 and abs(order[0].u - order[1].u) >= _MARGIN:
                text = f"What colour is the {shape} on the {side}?"
                yield Question("colour", side, text, order[0].colour, ((order[0].instance,),))


def _relations(seen: Sequence[Seen], rng: np.random.Generator) -> Iterator[Question]:
    """Pairs of objects that one name each tells apart, asked one way or the other."""
    names = [one.name for one in seen]
    single = [one for one in seen if names.count(one.name) == 1]
    pairs = [
        (a, b, side)
        for a, b in combinations(single, 2)
        for side, (axis, _) in SIDES.items()
        if abs((b.u, b.v)[axis] - (a.u, a.v)[axis]) >= _MARGIN
    ]
    for a, b, side in _some(pairs, RELATIONS_ASKED, rng):
        one, other = (a, b) if rng.random() < 0.5 else (b, a)
        axis, sign = SIDES[side]
        holds = sign * ((other.u, other.v)[axis] - (one.u, one.v)[axis]) > 0
        text = f"Is the {one.name} {side} the {other.name}?"
        about = (one.instance, other.instance)
        yield Question("relation", side, text, "yes" if holds else "no", (about,))


def _some(things: list, count: int, rng: np.random.Generator) -> list:
    """Up to `count` of them, in an order of chance."""
    return [things[i] for i in rng.permutation(len(things))[:count]]
