"""A paired difference as the cells of a row, and the family that it was tested in."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

from leanvla.report.words import SHADE, UNKNOWN, p_value, points

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Part = Mapping[str, Any]


def family(runs: Sequence[Part]) -> int:
    """Cells that are tested together in a table."""
    return max((run["comparison"]["family"] for run in runs if run["comparison"]), default=0)


def difference_cells(one: Part | None) -> list[str]:
    """Difference, bootstrap, both p values and the verdict of a comparison, as HTML."""
    if one is None:
        return [UNKNOWN] * 5
    paired, word = one["paired"], one["verdict"]
    low, high = paired["ci95"]
    return [
        f"{points(paired['difference'])} <small>{points(low)} to {points(high)}</small>",
        f"<small>{points(one['bootstrap'][0])} to {points(one['bootstrap'][1])}</small>",
        p_value(paired["p_value"]),
        p_value(one["p_holm"]),
        f'<span class="{SHADE.get(word, "")}">{escape(word)}</span>',
    ]
