"""How a suite is to be shown, and what a suite can do. Imports no simulator."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


@dataclass(frozen=True)
class Look:
    """What is asked of a suite when it is made.

    Attributes:
        render_profile: `default`, `fast` or `lowpoly`; None takes the suite's own.
        view_size: side of the square frames of an observation, px; None takes the suite's own.
        views: cameras to show, main first; None shows all.
        perturb: sizes of perturbations by kind.
    """

    render_profile: str | None = None
    view_size: int | None = None
    views: tuple[str, ...] | None = None
    perturb: Mapping[str, float] = field(default_factory=dict)


def always(seed: int) -> bool:
    """For suites in whose every scene something else can be asked for."""
    return True


def never(seed: int) -> bool:
    """For suites whose scenes allow one instruction each."""
    return False


class Traits(NamedTuple):
    """What a suite can do beyond its interface.

    Attributes:
        expert: whether its scripted expert does every task.
        swaps: whether something else can be asked for in the scene of a seed.
        perturb: kinds of perturbation that it can show.
    """

    expert: bool
    swaps: Callable[[int], bool] = always
    perturb: frozenset[str] = frozenset()
