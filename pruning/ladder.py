"""The ladder of budgets: an adaptive method steps on a rung, never on a free number.

Every rung is one static shape, so one engine or one captured graph serves it.
"""

from __future__ import annotations

from pruning.types import Budget

LADDER = (0.03125, 0.0625, 0.125, 0.25, 0.5, 0.75, 1.0)
"""Keep ratios that an adaptive method may choose."""


def rungs(n: int, most: int) -> tuple[int, ...]:
    """Token counts of the rungs below `most`, ascending, and `most` itself.

    Args:
        n: tokens of a view.
        most: the budget, which is a rung too.
    """
    below = {tokens for ratio in LADDER if (tokens := Budget(ratio).tokens(n)) < most}
    return (*sorted(below), most)


def rung_at_least(count: float, n: int, most: int) -> int:
    """The lowest rung that holds `count` tokens, or `most`."""
    return next((rung for rung in rungs(n, most) if rung >= count), most)


def nearest_rung(count: float, n: int, most: int) -> int:
    """The rung nearest to `count` tokens, the larger one at the middle."""
    return min(rungs(n, most), key=lambda rung: (abs(rung - count), -rung))
