"""Which perturbations there are, and how they are asked for. Imports no simulator."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from pruning.spelling import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping


class Kind(NamedTuple):
    """One kind of perturbation.

    Attributes:
        says: what its size means.
        most: largest size.
        whole: whether the size is a whole number.
    """

    says: str
    most: float
    whole: bool = False


KINDS: dict[str, Kind] = {
    "camera": Kind("fixed cameras move up to so many metres along and radians about each axis", 1),
    "lighting": Kind("brightness changes by up to this share, directions of light as much", 0.95),
    "distractors": Kind("at least so many other objects are in the scene", 3, whole=True),
    "paraphrase": Kind("1: another verb; 2: another verb inside another sentence", 2, whole=True),
    "pose": Kind("every joint of the arm begins up to so many radians elsewhere", 0.5),
}


class PerturbError(ValueError):
    """A perturbation that does not exist, or that a suite cannot show."""


def parse_perturb(text: str) -> dict[str, float]:
    """`camera:0.05,lighting:0.3` as sizes by kind, in the order of `KINDS`; empty for none.

    Raises:
        PerturbError: for an unknown kind, a kind named twice, or an impossible size.
    """
    sizes: dict[str, float] = {}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        name, _, size = part.partition(":")
        if name not in KINDS:
            hint = did_you_mean(name, KINDS, ", ") or ":"
            raise PerturbError(f"unknown perturbation {name!r}{hint} there are {', '.join(KINDS)}")
        if name in sizes:
            raise PerturbError(f"perturbation {name} is named twice")
        sizes[name] = _size(name, size)
    return {name: sizes[name] for name in KINDS if name in sizes}


def check_supported(suite: str, sizes: Mapping[str, float], can: Collection[str]) -> None:
    """Refuse what a suite cannot show.

    Raises:
        PerturbError: naming what it can.
    """
    missing = [name for name in sizes if name not in can]
    if missing:
        able = ", ".join(name for name in KINDS if name in can) or "none"
        raise PerturbError(f"suite {suite} cannot show {', '.join(missing)}: it can show {able}")


def _size(name: str, text: str) -> float:
    kind = KINDS[name]
    try:
        size = float(text)
    except ValueError:
        size = math.nan
    if not 0 < size <= kind.most or (kind.whole and not size.is_integer()):
        number = "a whole number" if kind.whole else "a number"
        raise PerturbError(
            f"perturbation {name}:{text} needs {number} above 0, up to {kind.most:g}: {kind.says}"
        )
    return size
