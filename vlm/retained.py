"""Where the kept tokens of one answer lie, for questions whose truth is known."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from pruning.retention import retention

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaxtyping import Int64
    from numpy import ndarray

    from vlm.types import Truth

ASKED = "asked"


class Retained(NamedTuple):
    """Means over the pictures that show what was asked about; None without any."""

    recall: float | None = None
    iou: float | None = None
    precision_omega: float | None = None
    omega_share: float | None = None


def retained(
    truth: Truth, kept: Sequence[Int64[ndarray, " k"]], visual_tokens: int, pictures: int
) -> Retained:
    """Compare kept tokens with masks; nothing where tokens are no square of patches per picture."""
    if len(kept) != pictures or visual_tokens % pictures:
        return Retained()
    side = math.isqrt(visual_tokens // pictures)
    if side * side * pictures != visual_tokens:
        return Retained()
    found = []
    for number, ids in enumerate(truth.about):
        if ids:
            others = truth.others[number] if truth.others else {}
            relevant = {ASKED: ids, **others}
            found.append(retention(kept[number], truth.masks.load(number), relevant, (side, side)))
    overlaps = [one.each[ASKED] for one in found]
    return Retained(
        _mean([one.recall for one in overlaps]),
        _mean([one.iou for one in overlaps]),
        _mean([one.precision_omega for one in found]),
        _mean([one.omega_share for one in found]),
    )


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
