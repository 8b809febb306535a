"""What a scene can hold, how often, and what comes together: the world that questions are about.

Existence questions follow POPE (arXiv 2305.10355): what is absent is asked for at random, by how
common it is, and by how often it comes with what is present. For that to mean something the world
needs habits: some kinds are common, and each kind has a companion.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sim.suites.tabletop.layout import RECEPTACLES, SHAPES

if TYPE_CHECKING:
    from jaxtyping import Float64

COLOURS = ("red", "green", "blue", "yellow", "cyan")
MOVABLES = tuple(f"{colour} {shape}" for colour in COLOURS for shape in SHAPES)
NAMES = (*MOVABLES, *RECEPTACLES)
MOST_MOVABLES = 4
"""The compiled scene has so many movable bodies."""

_COUNT_ODDS = (0.1, 0.25, 0.3, 0.35)
_COMPANY = 0.4
_RECEPTACLE_ODDS = {"bin": 0.6, "plate": 0.75, "block": 0.5}
_DRAWS = 4000


class Content(NamedTuple):
    """Names of what is in a scene; movables may repeat."""

    movables: tuple[str, ...]
    receptacles: tuple[str, ...]

    @property
    def names(self) -> frozenset[str]:
        """Every name that is there."""
        return frozenset(self.movables + self.receptacles)


class Habits(NamedTuple):
    """How often each of `NAMES` is in a scene, and how often two of them are."""

    frequency: Float64[np.ndarray, " names"]
    together: Float64[np.ndarray, "names names"]


def draw_content(rng: np.random.Generator, *, distinct: bool = False, least: int = 1) -> Content:
    """What a scene holds.

    Args:
        rng: source of chance.
        distinct: no two movables alike.
        least: movables at least.
    """
    count = max(least, int(rng.choice(MOST_MOVABLES, p=_COUNT_ODDS)) + 1)
    chosen: list[int] = []
    while len(chosen) < count:
        with_last = bool(chosen) and rng.random() < _COMPANY
        kind = _companion(chosen[-1]) if with_last else _common(rng)
        if not (distinct and kind in chosen):
            chosen.append(kind)
    there = tuple(name for name, odds in _RECEPTACLE_ODDS.items() if rng.random() < odds)
    return Content(tuple(MOVABLES[kind] for kind in chosen), there)


@lru_cache(maxsize=1)
def habits() -> Habits:
    """The world's habits, counted over many scenes of a fixed seed."""
    rng = np.random.default_rng(0)
    present = np.zeros((_DRAWS, len(NAMES)))
    for row in range(_DRAWS):
        present[row, [NAMES.index(name) for name in draw_content(rng).names]] = 1
    return Habits(present.mean(0), present.T @ present / _DRAWS)


def _common(rng: np.random.Generator) -> int:
    """A movable kind; the first are the most common."""
    weight = 1.0 / np.sqrt(1.0 + np.arange(len(MOVABLES)))
    return int(rng.choice(len(MOVABLES), p=weight / weight.sum()))


def _companion(kind: int) -> int:
    """What likes to lie beside a kind: another colour and, for every second one, another shape."""
    return (3 * kind + 4) % len(MOVABLES)
