from __future__ import annotations

import numpy as np
import pytest
import torch

from pruning import attention_rows as module
from pruning.attention_rows import attention_rows
from tests.pruning import reference


def tensors(heads: int, shared: int, s: int, t: int, batch: int = 2) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(heads * 100 + t)
    return (
        torch.randn(batch, heads, s, 8, generator=generator),
        torch.randn(batch, heads // shared, t, 8, generator=generator),
    )


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(("heads", "shared"), [(3, 1), (4, 2), (6, 3)])
@pytest.mark.parametrize(("s", "t"), [(20, 20), (5, 20)])
@pytest.mark.parametrize("one_head_at_a_time", [True, False])
def test_matches_reference(
    causal: bool, heads: int, shared: int, s: int, t: int, one_head_at_a_time: bool
) -> None:
    q, k = tensors(heads, shared, s, t)
    groups = {"last": slice(s - 1, s), "prefill": slice(0, s), "action": torch.tensor([1, 3])}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "CACHE_LOGITS", 0 if one_head_at_a_time else 1 << 30)
        means = attention_rows(q, k, groups, slice(2, 11), causal=causal)
    for kind, rows in {"last": [s - 1], "prefill": list(range(s)), "action": [1, 3]}.items():
        want = reference.attention_mean(
            q.numpy(), k.numpy(), rows, list(range(2, 11)), causal=causal
        )
        np.testing.assert_allclose(means[kind].numpy(), want, atol=1e-6)


def test_equals_the_attention_of_sdpa() -> None:
    """Values that are unit vectors make SDPA's output the attention itself."""
    q, k = tensors(4, 1, 12, 12)
    unit = torch.eye(12).expand(2, 4, 12, 12)
    full = torch.nn.functional.scaled_dot_product_attention(q, k, unit, is_causal=True)
    means = attention_rows(q, k, {"prefill": slice(3, 12)}, slice(1, 7))
    torch.testing.assert_close(means["prefill"], full[:, :, 3:, 1:7].mean((1, 2)))


def test_whole_row_sums_to_one_and_columns_are_not_renormalised() -> None:
    q, k = tensors(3, 1, 9, 9)
    total = attention_rows(q, k, {"last": slice(8, 9)}, slice(0, 9))["last"].sum(-1)
    part = attention_rows(q, k, {"last": slice(8, 9)}, slice(0, 4))["last"].sum(-1)
    torch.testing.assert_close(total, torch.ones(2))
    assert (part < 0.999).all()


def test_index_columns_equal_a_slice() -> None:
    q, k = tensors(3, 1, 9, 9)
    by_slice = attention_rows(q, k, {"last": slice(8, 9)}, slice(2, 6))["last"]
    by_index = attention_rows(q, k, {"last": slice(8, 9)}, torch.arange(2, 6))["last"]
    assert by_slice.equal(by_index)


@pytest.mark.parametrize("causal", [True, False])
def test_padding_keys_are_never_seen(causal: bool) -> None:
    q, k = tensors(3, 1, 10, 10)
    mask = torch.ones(2, 10, dtype=torch.bool)
    mask[:, 8:] = False
    padded = attention_rows(q, k, {"x": slice(2, 8)}, slice(0, 8), causal=causal, key_mask=mask)
    short = attention_rows(q[:, :, :8], k[:, :, :8], {"x": slice(2, 8)}, slice(0, 8), causal=causal)
    torch.testing.assert_close(padded["x"], short["x"])


def test_stride_samples_prefill_rows_only() -> None:
    q, k = tensors(3, 1, 12, 12)
    groups = {"prefill": slice(1, 12), "action": slice(6, 12), "text": slice(2, 5)}
    thin = attention_rows(q, k, groups, slice(0, 6), row_stride=3)
    by_hand = attention_rows(q, k, {**groups, "prefill": slice(1, 12, 3)}, slice(0, 6))
    assert all(thin[kind].equal(by_hand[kind]) for kind in groups)


def test_half_precision_is_reduced_in_fp32() -> None:
    q, k = tensors(3, 1, 9, 9)
    q, k = q.bfloat16(), k.bfloat16()
    mean = attention_rows(q, k, {"last": slice(8, 9)}, slice(0, 9), scale=0.25)["last"]
    assert mean.dtype == torch.float32
    torch.testing.assert_close(mean.sum(-1), torch.ones(2))


def test_bad_arguments_are_refused() -> None:
    q, k = tensors(3, 1, 4, 4)
    with pytest.raises(ValueError, match="cannot share"):
        attention_rows(q, k[:, :2], {}, slice(0, 1))
    with pytest.raises(ValueError, match="row_stride"):
        attention_rows(q, k, {}, slice(0, 1), row_stride=0)
