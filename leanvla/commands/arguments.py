"""Lists and ratios as they stand on a command line, for verbs that walk a grid."""

from __future__ import annotations

from leanvla.errors import UsageError
from pruning.types import Budget


def split_list(text: str, flag: str) -> list[str]:
    """Values between commas, each once.

    Raises:
        UsageError: for an empty one.
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
        ratio = float(text)
    except ValueError:
        raise UsageError(f"--keep has {text!r}: give ratios in (0, 1], e.g. 0.5,0.25") from None
    if ratio > 1:
        raise UsageError(f"--keep has {text!r}: give ratios in (0, 1], e.g. 0.5,0.25")
    Budget(ratio)
    return ratio
