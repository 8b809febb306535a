"""Do the kept tokens lie where they should? Kept patches against instance masks.

For one view of `n` patches let K be the patches that were kept and T those that an instance covers
(a patch counts when at least `least` of its pixels belong to the instance, or when it is the
instance's fullest one, so that what is visible is never nowhere):

    recall      = |K ∩ T| / |T|        a random choice of k has k / n
    IoU         = |K ∩ T| / |K ∪ T|

Relevant instances (what is asked for or manipulated, the gripper, the goal) together cover Ω:

    Precision-Ω = |K ∩ Ω| / |K|        a random choice has |Ω| / n

Only numpy, so that a simulator's report can use it beside an engine without torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from jaxtyping import Bool, Float64, Int, Int64

LEAST_SHARE = 0.25


class Overlap(NamedTuple):
    """How kept patches meet one instance; None where the instance is not visible."""

    recall: float | None
    iou: float | None


class Retention(NamedTuple):
    """How kept patches meet all relevant instances of a view.

    Attributes:
        each: overlap per name.
        precision_omega: share of the kept patches that lie on any of them; None when none of them
            is visible, or nothing was kept.
        omega_share: share of the view that they cover, which is what chance would give.
    """

    each: Mapping[str, Overlap]
    precision_omega: float | None
    omega_share: float


def retention(
    kept: Int[np.ndarray, " k"],
    mask: Int[np.ndarray, "h w"],
    relevant: Mapping[str, Sequence[int]],
    grid: tuple[int, int],
    least: float = LEAST_SHARE,
) -> Retention:
    """Compare kept patches with instances.

    Args:
        kept: indices of the kept patches, row by row from the top left.
        mask: instance id of every pixel of the view.
        relevant: instance ids by what they are to the task: `asked`, `gripper`, `goal`.
        grid: rows and columns of patches.
        least: share of a patch's pixels from which it counts as covered.

    Raises:
        ValueError: for an index outside the grid, a repeated one, or an empty grid.
    """
    rows, columns = grid
    kept = np.asarray(kept, np.int64)
    if rows < 1 or columns < 1:
        raise ValueError(f"grid is {rows} x {columns}: give at least one patch")
    if kept.size and not (kept.min() >= 0 and kept.max() < rows * columns):
        raise ValueError(f"kept patches reach {kept.max()}, the grid has {rows * columns}")
    lives = np.zeros(rows * columns, bool)
    lives[kept] = True
    if lives.sum() != kept.size:
        raise ValueError("a kept patch is named twice")
    covered = {name: covered_patches(mask, ids, grid, least) for name, ids in relevant.items()}
    omega = _union(covered.values(), rows * columns)
    shown = bool(omega.any()) and kept.size > 0
    return Retention(
        {name: overlap(lives, patches) for name, patches in covered.items()},
        float((lives & omega).sum() / kept.size) if shown else None,
        float(omega.mean()),
    )


def overlap(kept: Bool[np.ndarray, " n"], target: Bool[np.ndarray, " n"]) -> Overlap:
    """Recall and IoU of one set of patches."""
    if not target.any():
        return Overlap(None, None)
    both = int((kept & target).sum())
    return Overlap(both / int(target.sum()), both / int((kept | target).sum()))


def covered_patches(
    mask: Int[np.ndarray, "h w"],
    ids: Iterable[int],
    grid: tuple[int, int],
    least: float = LEAST_SHARE,
) -> Bool[np.ndarray, " n"]:
    """Which patches some instances cover, each instance with at least one while it is visible."""
    covered = np.zeros(grid[0] * grid[1], bool)
    for instance in ids:
        share = patch_shares(mask == instance, grid)
        covered |= (share >= least) & (share > 0)
        if share.any():
            covered[share.argmax()] = True
    return covered


def patch_shares(
    where: Bool[np.ndarray, "h w"], grid: tuple[int, int]
) -> Float64[np.ndarray, " n"]:
    """Share of every patch's pixels that are set; patches of unequal size are allowed."""
    patch = patch_of_pixels(where.shape, grid)
    count = grid[0] * grid[1]
    inside = np.bincount(patch[where], minlength=count)
    return inside / np.maximum(np.bincount(patch.ravel(), minlength=count), 1)


def patch_of_pixels(shape: tuple[int, ...], grid: tuple[int, int]) -> Int64[np.ndarray, "h w"]:
    """Which patch every pixel belongs to."""
    row = np.arange(shape[0]) * grid[0] // shape[0]
    column = np.arange(shape[1]) * grid[1] // shape[1]
    return row[:, None] * grid[1] + column[None]


def _union(sets: Iterable[Bool[np.ndarray, " n"]], count: int) -> Bool[np.ndarray, " n"]:
    union = np.zeros(count, bool)
    for one in sets:
        union |= one
    return union
