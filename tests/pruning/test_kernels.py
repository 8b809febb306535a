"""Greedy kernels against loops, and their three forms against one another."""

from __future__ import annotations

import sys
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pruning.coverage import coverage_lazy, coverage_loops, coverage_static, max_coverage
from pruning.dpp import dpp_greedy, dpp_map, dpp_static
from pruning.farthest import farthest, farthest_static
from pruning.jit import compiled
from pruning.kv_select import KVSelect
from pruning.ladder import nearest_rung, rung_at_least, rungs
from pruning.maxsum import max_sum, max_sum_static
from pruning.qk import mean_product, row_attention, soft_vote
from pruning.similarity import cosines, merge_map, shares, spread
from pruning.wrappers.quota import split
from tests.pruning import reference_methods as slow

SEEDS = st.integers(0, 2**32 - 1)
FAST = settings(derandomize=True, max_examples=40, deadline=None)


def integers(seed: int, *shape: int, low: int = -2, high: int = 3) -> np.ndarray:
    """Few values, so that products are exact and ties many."""
    return np.random.default_rng(seed).integers(low, high, shape).astype(np.float32)


@given(SEEDS, st.integers(1, 14))
@FAST
def test_coverage_in_all_forms_is_the_full_greedy_one(seed: int, k: int) -> None:
    weights = integers(seed, 6, 14, low=0, high=5)
    want = slow.coverage(weights, k)
    columns = np.ascontiguousarray(weights.T)
    batch = torch.from_numpy(weights)[None]
    assert max_coverage(batch, k)[0].tolist() == want
    assert sorted(coverage_lazy(columns, k)) == want
    assert sorted(coverage_loops(columns, k)) == want
    assert coverage_static(batch, k)[0].tolist() == want


@pytest.mark.parametrize("seed", range(5))
def test_compiled_coverage_is_the_plain_one(seed: int) -> None:
    """Soft weights at a real size: what a machine without numba chooses is chosen with it."""
    loops = compiled(coverage_loops)
    if loops is None:
        pytest.skip("numba is not installed")
    draw = torch.Generator().manual_seed(seed)
    columns = torch.randn(200, 90, generator=draw).softmax(0).numpy()
    want = coverage_lazy(columns, 50)
    assert loops(columns, 50).tolist() == want.tolist()
    batch = torch.from_numpy(columns.T.copy())[None]
    assert coverage_static(batch, 50)[0].tolist() == sorted(want)


def test_without_numba_the_same_columns_are_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    weights = torch.rand(2, 20, 40, generator=torch.Generator().manual_seed(0))
    want = max_coverage(weights, 10)
    compiled.cache_clear()
    monkeypatch.setitem(sys.modules, "numba", None)
    try:
        assert compiled(coverage_loops) is None
        assert max_coverage(weights, 10).equal(want)
    finally:
        compiled.cache_clear()


@given(SEEDS, st.integers(1, 6))
@FAST
def test_dpp_is_greedy_by_determinant(seed: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((9, 8)).astype(np.float32)
    kernel = features @ features.T
    want = slow.dpp(kernel, k)
    assert sorted(dpp_greedy(kernel, k)) == want
    assert dpp_static(torch.from_numpy(kernel)[None], k)[0].tolist() == want


def test_dpp_past_its_rank_chooses_every_token_once() -> None:
    """Twelve tokens of three dimensions: after three there is nothing left but the order."""
    features = integers(3, 12, 3)
    kernel = torch.from_numpy(features @ features.T)[None]
    assert dpp_map(kernel, 12)[0].tolist() == list(range(12))
    assert dpp_static(kernel, 12)[0].tolist() == list(range(12))


@given(SEEDS, st.integers(1, 9))
@FAST
def test_max_sum_and_farthest_are_the_loops(seed: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((9, 6)).astype(np.float32)
    weights = rng.random(9).astype(np.float32)
    batch, pivot = torch.from_numpy(features)[None], int(rng.integers(9))
    first, worth = torch.tensor([pivot]), torch.from_numpy(weights)[None]
    want = slow.max_sum(features, pivot, k)
    assert max_sum(batch, first, k)[0].tolist() == want
    assert max_sum_static(cosines(batch), first, k)[0].tolist() == want
    want = slow.farthest(features, weights, k)
    assert farthest(batch, worth, k)[0].tolist() == want
    assert farthest_static((1 - cosines(batch)).clamp_min(0), worth, k)[0].tolist() == want


@pytest.mark.parametrize(("heads", "key_heads"), [(4, 4), (4, 2), (6, 1)])
def test_shared_key_heads_are_paired_as_in_llama(heads: int, key_heads: int) -> None:
    draw = torch.Generator().manual_seed(heads)
    q = torch.randn(2, heads, 3, 5, generator=draw)
    k = torch.randn(2, key_heads, 7, 5, generator=draw)
    share = heads // key_heads
    for b in range(2):
        vote = slow.soft_vote(q[b, :, 0].numpy(), k[b].numpy(), 0.5)
        np.testing.assert_allclose(soft_vote(q[:, :, 0], k, 0.5)[b], vote, rtol=1e-5)
        product, rows = np.zeros(7), np.zeros((3, 4))
        for h in range(heads):
            logits = (q[b, h] @ k[b, h // share].T / 5**0.5).numpy()
            product += logits.mean(0) / heads
            rows += np.array([slow.softmax(row)[2:6] for row in logits]) / heads
        np.testing.assert_allclose(mean_product(q, k)[b], product, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(row_attention(q, k, slice(2, 6))[b], rows, rtol=1e-5)


def test_merged_tokens_go_to_the_nearest_kept_one() -> None:
    nearness = torch.tensor([[[1.0, 0.2, 0.9, 0.1], [0.2, 1.0, 0.3, 0.8],
                              [0.9, 0.3, 1.0, 0.0], [0.1, 0.8, 0.0, 1.0]]])  # fmt: skip
    kept, weights = torch.tensor([[0, 1]]), torch.tensor([[1.0, 1.0, 3.0, 1.0]])
    merge = merge_map(kept, weights, nearness)
    torch.testing.assert_close(merge, torch.tensor([[[0.25, 0, 0.75, 0], [0, 0.5, 0, 0.5]]]))
    alone = merge_map(kept, weights, nearness, takers=torch.tensor([[False, True]]))
    torch.testing.assert_close(alone, torch.tensor([[[1.0, 0, 0, 0], [0, 0.2, 0.6, 0.2]]]))


def test_spread_and_shares_of_equal_scores() -> None:
    assert spread(torch.full((1, 4), 3.0)).tolist() == [[1.0] * 4]
    assert shares(torch.zeros(1, 4)).tolist() == [[0.25] * 4]
    assert spread(torch.tensor([[1.0, 2.0, 3.0]])).tolist() == [[0.0, 0.5, 1.0]]


# the ladder


def test_rungs_end_at_the_budget() -> None:
    assert rungs(256, 100) == (8, 16, 32, 64, 100)
    assert rungs(256, 256) == (8, 16, 32, 64, 128, 192, 256)
    assert rungs(4, 1) == (1,)


@given(st.integers(1, 600), st.integers(0, 700), st.data())
@FAST
def test_rungs_are_never_exceeded(n: int, count: int, data: st.DataObject) -> None:
    most = data.draw(st.integers(1, n))
    steps = rungs(n, most)
    assert list(steps) == sorted(set(steps))
    above = rung_at_least(count, n, most)
    assert above in steps
    assert above >= min(count, most)
    assert all(step < count for step in steps if step < above)
    near = nearest_rung(count, n, most)
    assert all(abs(near - count) <= abs(step - count) for step in steps)


# the split of a budget


@given(st.lists(st.floats(0, 100), min_size=1, max_size=6), st.integers(1, 40), st.data())
@FAST
def test_a_split_is_exact_and_fair(worth: list[float], n: int, data: st.DataObject) -> None:
    keep = data.draw(st.integers(1, n))
    least = max(1, keep // 4)
    budget = split(keep * len(worth), np.array(worth), least, n)
    assert sum(budget) == keep * len(worth)
    assert all(least <= tokens <= n for tokens in budget)
    order = sorted(range(len(worth)), key=lambda view: worth[view])
    for low, high in pairwise(order):
        if worth[low] < worth[high]:
            assert budget[low] <= budget[high] + 1


def test_a_split_by_halves() -> None:
    assert split(100, np.array([0.4, 0.6]), 1, 90) == [40, 60]
    assert split(100, np.array([1.0, 9.0]), 1, 70) == [30, 70]
    assert split(10, np.array([0.0, 0.0, 0.0]), 1, 9) == [4, 3, 3]


# keys and values of a long context


def test_an_election_takes_sinks_the_best_and_the_newest() -> None:
    select = KVSelect(sinks=2, most=3, newest=4)
    draw = torch.Generator().manual_seed(0)
    q, k = torch.randn(1, 4, 8, generator=draw), torch.randn(1, 2, 40, 8, generator=draw)
    election = select.elect(q, k)
    vote = slow.soft_vote(q[0].numpy(), k[0, :, 2:36].numpy(), 1.0)
    best = sorted((np.argsort(-vote, kind="stable")[:3] + 2).tolist())
    assert election.slots[0].tolist() == [0, 1, *best, 36, 37, 38, 39]
    assert select.elect(q, k[:, :, :9]) is None  # everything fits


def test_an_election_stands_while_queries_point_the_same_way() -> None:
    select = KVSelect(sinks=1, most=2, newest=2, cosine=0.9)
    draw = torch.Generator().manual_seed(1)
    q, k = torch.randn(1, 4, 8, generator=draw), torch.randn(1, 2, 30, 8, generator=draw)
    first = select.elect(q, k)
    longer = torch.cat([k, torch.randn(1, 2, 1, 8, generator=draw)], 2)
    again = select.elect(q + 0.01, longer, first)
    assert again.elected.equal(first.elected)
    assert again.slots[0, -2:].tolist() == [29, 30]  # the newest move on
    assert again.query is first.query  # compared with who elected, not with the last one
    assert select.elect(-q, longer, first).query is not first.query
