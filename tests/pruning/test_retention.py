"""The metric against a slow count, pixel by pixel and patch by patch."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pruning.macs import layer_macs, prefill_macs
from pruning.retention import covered_patches, patch_shares, retention


@st.composite
def views(draw):
    rows, columns = draw(st.integers(1, 5)), draw(st.integers(1, 5))
    height, width = draw(st.integers(rows, 23)), draw(st.integers(columns, 23))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    mask = rng.integers(0, 4, (height, width)) * rng.integers(0, 2, (height, width))
    kept = np.flatnonzero(rng.random(rows * columns) < draw(st.floats(0, 1)))
    return mask, (rows, columns), kept, draw(st.sampled_from([0.0, 0.25, 0.5, 1.0]))


def slow_cover(mask, ids, grid, least):
    """Patches of each instance by walking over pixels."""
    patches = set()
    for instance in ids:
        inside, size = {}, {}
        for y, x in np.ndindex(mask.shape):
            patch = (y * grid[0] // mask.shape[0]) * grid[1] + x * grid[1] // mask.shape[1]
            size[patch] = size.get(patch, 0) + 1
            inside[patch] = inside.get(patch, 0) + (mask[y, x] == instance)
        share = {p: inside[p] / size[p] for p in size}
        best = max(sorted(share), key=share.get)
        patches |= {p for p in share if share[p] > 0 and (share[p] >= least or p == best)}
    return patches


@given(views())
def test_every_number_equals_the_slow_count(view) -> None:
    mask, grid, kept, least = view
    relevant = {"asked": [1, 3], "gripper": [2], "goal": []}
    result = retention(kept, mask, relevant, grid, least)
    k = set(kept.tolist())
    sets = {name: slow_cover(mask, ids, grid, least) for name, ids in relevant.items()}
    for name, target in sets.items():
        recall, iou = result.each[name]
        assert recall == (len(k & target) / len(target) if target else None)
        assert iou == (len(k & target) / len(k | target) if target else None)
    omega = set().union(*sets.values())
    expected = len(k & omega) / len(k) if k and omega else None
    assert result.precision_omega == expected
    assert result.omega_share == pytest.approx(len(omega) / (grid[0] * grid[1]))


@given(views())
def test_everything_kept_recalls_everything_and_chance_is_its_precision(view) -> None:
    mask, grid, _, least = view
    n = grid[0] * grid[1]
    result = retention(np.arange(n), mask, {"a": [1], "b": [2, 3]}, grid, least)
    assert all(one.recall in (None, 1.0) for one in result.each.values())
    if result.precision_omega is not None:
        assert result.precision_omega == pytest.approx(result.omega_share)


@given(views())
def test_keeping_more_never_lowers_recall(view) -> None:
    mask, grid, kept, least = view
    fewer = retention(kept[::2], mask, {"a": [1]}, grid, least).each["a"].recall
    more = retention(kept, mask, {"a": [1]}, grid, least).each["a"].recall
    assert fewer is None or fewer <= more


def test_a_speck_still_has_a_patch_and_shares_sum_up() -> None:
    mask = np.zeros((32, 32), int)
    mask[17, 3] = 7
    assert np.flatnonzero(covered_patches(mask, [7], (4, 4))).tolist() == [8]
    assert not covered_patches(mask, [9], (4, 4)).any()
    where = np.random.default_rng(0).random((32, 32)) < 0.3
    assert patch_shares(where, (4, 4)).mean() == pytest.approx(where.mean())


@pytest.mark.parametrize(
    ("kept", "grid", "says"),
    [([16], (4, 4), "reach 16"), ([-1], (4, 4), "grid has 16"), ([2, 2], (4, 4), "named twice"),
     ([], (0, 4), "at least one patch")],
)  # fmt: skip
def test_impossible_patches_are_refused(kept, grid, says) -> None:
    with pytest.raises(ValueError, match=says):
        retention(np.array(kept, int), np.zeros((8, 8), int), {}, grid)


def test_macs_by_the_papers_formula() -> None:
    # 256 visual and 35 other tokens of Llama-2 7B, three dense layers, a quarter kept.
    layers = [291] * 3 + [64 + 35] * 29
    assert prefill_macs([291] * 32, 4096, 11008) / 1e12 == pytest.approx(1.907, rel=2e-3)
    assert prefill_macs(layers, 4096, 11008) / 1e12 == pytest.approx(0.762, rel=3e-3)
    assert layer_macs(0, 8, 8) == 0
