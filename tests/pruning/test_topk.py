from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pruning.topk import ScoreError, membership, top_k
from tests.pruning import reference

# Few distinct values, so that ties are the rule and not the exception.
TIED = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 3), st.integers(1, 24)),
    elements=st.sampled_from([0.0, -0.0, 0.25, 1.0, 3.0, float("inf")]),
)


@given(TIED, st.data())
def test_matches_reference_and_breaks_ties_low(scores: np.ndarray, data: st.DataObject) -> None:
    k = data.draw(st.integers(1, scores.shape[1]))
    kept = top_k(torch.from_numpy(scores), k)
    assert kept.dtype == torch.int64
    assert kept.tolist() == [reference.top_k(row, k) for row in scores]


@given(TIED, st.data())
def test_accelerator_path_gives_the_same_set(scores: np.ndarray, data: st.DataObject) -> None:
    k = data.draw(st.integers(1, scores.shape[1]))
    tensor = torch.from_numpy(scores)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pruning.topk.on_host", lambda _: False)
        static = top_k(tensor, k)
    assert static.equal(top_k(tensor, k))


def test_all_equal_scores_keep_the_first_tokens() -> None:
    assert top_k(torch.zeros(2, 9), 4).tolist() == [[0, 1, 2, 3]] * 2


@pytest.mark.parametrize("host", [True, False])
def test_doubles_that_are_one_float_tie(host: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pruning.topk.on_host", lambda _: host)
    scores = torch.tensor([[1.0, 1.0 + 1e-12, 0.0]], dtype=torch.float64)
    assert top_k(scores, 1).tolist() == [[0]]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_compares_in_fp32(dtype: torch.dtype) -> None:
    scores = torch.rand(2, 50, generator=torch.Generator().manual_seed(0)).to(dtype)
    assert top_k(scores, 7).equal(top_k(scores.float(), 7))


def test_nan_is_refused_and_located() -> None:
    scores = torch.rand(2, 8)
    scores[1, 5] = float("nan")
    with pytest.raises(ScoreError, match="token 5 in group 1 is NaN"):
        top_k(scores, 3)


def test_a_tie_at_the_border_does_not_hide_a_nan() -> None:
    scores = torch.tensor([[float("nan"), 1.0, 1.0, 0.0], [3.0, 2.0, 1.0, 0.0]])
    with pytest.raises(ScoreError, match="token 0 in group 0 is NaN"):
        top_k(scores, 2)


def test_opposite_infinities_are_no_nan() -> None:
    scores = torch.tensor([[float("inf"), float("-inf"), 1.0]])
    assert top_k(scores, 2).tolist() == [[0, 2]]


@pytest.mark.parametrize(("shape", "k"), [((2, 8), 0), ((2, 8), 9), ((8,), 2)])
def test_impossible_requests_are_refused(shape: tuple[int, ...], k: int) -> None:
    with pytest.raises(ScoreError, match="cannot give"):
        top_k(torch.rand(shape), k)


def test_scores_are_not_written() -> None:
    scores = torch.rand(2, 8)
    before = scores.clone()
    top_k(scores, 3)
    assert scores.equal(before)


def test_membership() -> None:
    mask = membership(torch.tensor([[0, 3], [1, 2]]), 4)
    assert mask.tolist() == [[True, False, False, True], [False, True, True, False]]
