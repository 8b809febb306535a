from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pruning.maxmin import distances, greedy, greedy_static, max_min
from tests.pruning import reference


@st.composite
def problems(draw: st.DrawFn, integer: bool) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Features, candidate masks and k; integer features make every inner product exact, with ties.

    Duplicates and all-zero tokens (a blank wall) are common on purpose.
    """
    groups, n, d = draw(st.integers(1, 3)), draw(st.integers(2, 16)), draw(st.integers(1, 6))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape = (groups, n, d)
    features = rng.integers(-2, 3, shape) if integer else rng.standard_normal(shape)
    k = draw(st.integers(1, n))
    masks = np.zeros((groups, n), bool)
    for mask in masks:
        mask[rng.permutation(n)[: rng.integers(k, n + 1)]] = True
    return torch.from_numpy(features.astype(np.float32)), torch.from_numpy(masks), k


def expected(features: torch.Tensor, masks: torch.Tensor, k: int) -> list[list[int]]:
    return [
        reference.max_min(reference.cosine_distance(x), np.flatnonzero(mask).tolist(), k)
        for x, mask in zip(features.numpy(), masks.numpy(), strict=True)
    ]


def as_if_large(features: torch.Tensor, masks: torch.Tensor, k: int) -> torch.Tensor:
    """A call for every view, as where a view is large."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pruning.maxmin.LARGE", 0)
        return max_min(features, masks, k)


def packed(features: torch.Tensor, masks: torch.Tensor, k: int) -> torch.Tensor:
    """Static shapes that are no larger than the largest group of candidates."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pruning.maxmin.on_host", lambda tensor: False)
        return max_min(features, masks, k, most=int(masks.sum(-1).max()))


def without_numba(features: torch.Tensor, masks: torch.Tensor, k: int) -> torch.Tensor:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pruning.maxmin.compiled", lambda loop: None)
        return max_min(features, masks, k)


@given(problems(integer=True))
def test_exact_inner_products_match_the_reference_ties_included(problem: tuple) -> None:
    features, masks, k = problem
    want = expected(*problem)
    assert max_min(features, masks, k).tolist() == want
    assert as_if_large(features, masks, k).tolist() == want
    assert without_numba(features, masks, k).tolist() == want
    assert greedy_static(distances(features), masks, k).tolist() == want
    assert packed(features, masks, k).tolist() == want


@given(problems(integer=False))
@settings(derandomize=True)
def test_real_features_match_the_reference(problem: tuple) -> None:
    features, masks, k = problem
    assume(features.shape[-1] > 1)  # in one dimension every cosine is 1 or -1 up to rounding
    want = expected(*problem)
    assert max_min(features, masks, k).tolist() == want
    assert as_if_large(features, masks, k).tolist() == want
    assert without_numba(features, masks, k).tolist() == want
    assert greedy_static(distances(features), masks, k).tolist() == want
    assert packed(features, masks, k).tolist() == want


@pytest.mark.parametrize(("n", "d", "k"), [(144, 192, 36), (256, 192, 32), (256, 1024, 128)])
def test_both_formulations_agree_at_real_sizes(n: int, d: int, k: int) -> None:
    generator = torch.Generator().manual_seed(n + d)
    features = torch.randn(2, n, d, generator=generator)
    masks = torch.zeros(2, n, dtype=torch.bool)
    for mask in masks:
        mask[torch.randperm(n, generator=generator)[: 2 * k]] = True
    kept = max_min(features, masks, k)
    assert kept.equal(greedy_static(distances(features), masks, k))
    assert kept.equal(without_numba(features, masks, k))


def test_start_is_the_candidate_with_the_farthest_nearest_neighbour() -> None:
    angle = torch.tensor([0.0, 0.1, 0.2, 2.0, 4.0, 4.1])
    features = torch.stack([angle.cos(), angle.sin()], -1).unsqueeze(0)
    everyone = torch.ones(1, 6, dtype=torch.bool)
    assert max_min(features, everyone, 1).tolist() == [[3]]
    without = everyone.clone()
    without[0, 3] = False
    assert 3 not in max_min(features, without, 3)[0].tolist()


def test_duplicates_are_never_chosen_twice() -> None:
    features = torch.ones(1, 10, 4)
    assert max_min(features, torch.ones(1, 10, dtype=torch.bool), 4).tolist() == [[0, 1, 2, 3]]
    static = greedy_static(distances(features, bf16=True), torch.ones(1, 10, dtype=torch.bool), 4)
    assert static.tolist() == [[0, 1, 2, 3]]


def test_zero_tokens_are_at_distance_one_and_never_nan() -> None:
    features = torch.zeros(1, 5, 3)
    features[0, 0, 0] = 1.0
    matrix = distances(features)
    assert matrix.isfinite().all()
    assert matrix[0, 0, 1] == 1.0


def test_exactly_k_candidates_pass_unfiltered() -> None:
    masks = torch.zeros(1, 12, dtype=torch.bool)
    masks[0, [1, 4, 11]] = True
    assert max_min(torch.randn(1, 12, 8), masks, 3).tolist() == [[1, 4, 11]]


@given(st.integers(0, 2**32 - 1))
@settings(derandomize=True, max_examples=50)
def test_order_of_candidates_does_not_matter(seed: int) -> None:
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((12, 5)).astype(np.float32)
    matrix = reference.cosine_distance(features)
    gaps = (matrix + np.diag(np.full(12, np.inf, np.float32))).min(0)
    assume((gaps == gaps.max()).sum() == 1)  # a tied start is settled by index, so by order
    shuffle, gram = rng.permutation(12), features @ features.T
    kept = greedy(gram.copy(), 5)
    moved = greedy(np.ascontiguousarray(gram[np.ix_(shuffle, shuffle)]), 5)
    assert sorted(shuffle[moved].tolist()) == [int(i) for i in kept]


def test_groups_do_not_see_one_another() -> None:
    features, masks = torch.randn(3, 20, 6), torch.ones(3, 20, dtype=torch.bool)
    whole = max_min(features, masks, 7)
    for group in range(3):
        alone = max_min(features[group : group + 1], masks[group : group + 1], 7)
        assert alone[0].equal(whole[group])


def test_distances_are_exactly_symmetric() -> None:
    matrix = distances(torch.randn(2, 33, 19))
    assert matrix.equal(matrix.mT.contiguous())


def test_half_precision_features_are_compared_in_fp32() -> None:
    features = torch.randn(2, 30, 16).bfloat16()
    masks = torch.ones(2, 30, dtype=torch.bool)
    assert max_min(features, masks, 9).equal(max_min(features.float(), masks, 9))
