"""Arguments that several verbs share, as text from the command line."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from leanvla.errors import UsageError
from pruning.types import Budget

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sim.rollout.types import Cell


def split_list(text: str, flag: str) -> list[str]:
    """Values separated by commas, without repetitions.

    Raises:
        UsageError: when one is empty.
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(parts):
        raise UsageError(f"{flag} is {text!r}: give values separated by single commas")
    return list(dict.fromkeys(parts))


def parse_ratio(text: str) -> float:
    """A keep ratio in (0, 1].

    Raises:
        UsageError: for anything else than a number up to one.
        BudgetError: for a number that no view can give.
    """
    try:
        value = float(text)
    except ValueError:
        raise UsageError(f"--keep has {text!r}: give ratios in (0, 1], e.g. 0.5,0.25") from None
    if value > 1:
        raise UsageError(f"--keep has {text!r}: give ratios in (0, 1], e.g. 0.5,0.25")
    Budget(value)
    return value


def parse_cell(text: str, flag: str) -> Cell:
    """A cell from `METHOD@KEEP`, or `dense`.

    Raises:
        UsageError: when it is not of that form.
    """
    from sim.rollout.types import DENSE, Cell

    if text == DENSE:
        return Cell(DENSE, 1.0)
    method, _, keep = text.rpartition("@")
    try:
        if method:
            return Cell(method, float(keep))
    except ValueError:
        pass
    raise UsageError(f"{flag} has {text!r}: give METHOD@KEEP, e.g. fastv@0.25")


def parse_options(texts: Iterable[str]) -> dict[str, Any]:
    """Fields of a method from `field=value`.

    Raises:
        UsageError: when one is not of that form.
    """
    return dict(map(_option, texts))


def _option(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise UsageError(f"--option is {text!r}: give field=value, e.g. window=5")
    if name == "keep":
        raise UsageError(f"--option is {text!r}: keep has a flag of its own, --keep")
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, value
