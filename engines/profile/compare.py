"""Is one measurement slower than another? A verdict by interval, not by two medians.

The interval covers what differs between queries of a run. What differs between runs (another room
temperature, another neighbour on the machine) it cannot see, hence a tolerance on top.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from engines.profile.statistics import Ratio, unpaired_ratio
from engines.profile.summary import steady

if TYPE_CHECKING:
    from collections.abc import Sequence

    from engines.profile.measure import Sample

Verdict = Literal["faster", "slower", "no difference shown"]


class ComparisonError(ValueError):
    """Two profiles that have no cell in common."""


@dataclass(frozen=True)
class CellComparison:
    """One cell in both profiles.

    Attributes:
        cell: its name.
        now_ms: median query here.
        before_ms: median query there.
        ratio: here over there; above one is slower.
        verdict: `slower` when the whole interval lies above `1 + tolerance`, `faster` when it lies
            below `1 - tolerance`.
    """

    cell: str
    now_ms: float
    before_ms: float
    ratio: Ratio
    verdict: Verdict


def compare(
    now: Sequence[Sample], before: Sequence[Sample], tolerance: float
) -> list[CellComparison]:
    """Compare the cells that both profiles have, by median wall time of a query.

    Args:
        now: samples of this profile.
        before: samples of the other one.
        tolerance: relative change that is not worth a verdict, e.g. 0.03.

    Raises:
        ComparisonError: when no cell is in both.
        ValueError: for a negative tolerance.
    """
    if tolerance < 0:
        raise ValueError(f"tolerance is {tolerance}: give 0 or more, e.g. 0.03")
    here, there = _by_cell(now), _by_cell(before)
    common = [cell for cell in here if cell in there]
    if not common:
        raise ComparisonError(
            f"nothing to compare: measured here {', '.join(here)}; there {', '.join(there)}"
        )
    return [_compare(cell, here[cell], there[cell], tolerance) for cell in common]


def _by_cell(samples: Sequence[Sample]) -> dict[str, list[float]]:
    cells: dict[str, list[float]] = {}
    for sample in steady(samples):
        cells.setdefault(sample.cell, []).append(sample.query_ms)
    return cells


def _compare(
    cell: str, now: Sequence[float], before: Sequence[float], tolerance: float
) -> CellComparison:
    import numpy as np

    ratio = unpaired_ratio(now, before)
    verdict: Verdict = "no difference shown"
    if ratio.low > 1 + tolerance:
        verdict = "slower"
    elif ratio.high < 1 - tolerance:
        verdict = "faster"
    return CellComparison(cell, float(np.median(now)), float(np.median(before)), ratio, verdict)
