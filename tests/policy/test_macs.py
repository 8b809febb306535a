"""MAC counts against the published column and a brute-force count of the modules."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from policy.openvla.attention import plain_attention
from policy.openvla.config import TextConfig
from policy.openvla.macs import PROMPT_TOKENS, most_speedup, prefill_macs, query_macs
from policy.openvla.model import OpenVLAModel
from tests.policy.tiny import CONFIGS

LLAMA_7B = TextConfig(32064, 4096, 11008, 32, 32, 32)


@pytest.mark.parametrize(("kept", "tera"), [(256, 1.907), (128, 1.142), (64, 0.762), (32, 0.573)])
def test_column_of_vla_pruner(kept, tera):
    assert prefill_macs(LLAMA_7B, 3, 256 + 35, kept + 35) / 1e12 == pytest.approx(tera, abs=5e-4)


@pytest.mark.parametrize(("kept", "tera"), [(512, 4.04), (256, 2.53), (128, 1.79), (64, 1.42)])
def test_column_of_oft(kept, tera):
    assert prefill_macs(LLAMA_7B, 4, 512 + 97, kept + 97) / 1e12 == pytest.approx(tera, abs=5e-3)


@pytest.mark.parametrize("kind", CONFIGS)
def test_vision_count_is_that_of_the_modules(kind):
    config = CONFIGS[kind]
    model = OpenVLAModel(config).eval()
    channels = 3 * len(config.towers) * len(config.views)
    text = torch.zeros(1, 4, config.text.hidden_size)
    counter = FlopCounterMode(display=False)
    with counter, plain_attention(), torch.no_grad():
        model.see(torch.zeros(1, channels, 32, 32), text)
    count = query_macs(config, cut=1, kept_per_view=16).vision
    assert counter.get_total_flops() == 2 * count


def test_prefill_is_the_papers_count_without_grouped_keys():
    config = CONFIGS["single_ar"]
    macs = query_macs(config, cut=1, kept_per_view=4)
    full, short = 16 + PROMPT_TOKENS, 4 + PROMPT_TOKENS
    assert macs.prefill_below + macs.prefill_above == prefill_macs(config.text, 1, full, short)


def test_parallel_decoding_counts_placeholders_and_proprio_and_no_decode():
    config = CONFIGS["oft_l1"]
    macs = query_macs(config, cut=1, kept_per_view=16)
    rest = PROMPT_TOKENS + 1 + config.chunk * config.dof + 1
    full = 2 * 16 + rest
    assert macs.prefill_below + macs.prefill_above == prefill_macs(config.text, 1, full, full)
    assert macs.decode == 0
    assert macs.total == sum(
        (macs.vision, macs.prefill_below, macs.prefill_above, macs.decode, macs.head)
    )


def test_autoregressive_decode_grows_with_the_cache():
    one = replace(CONFIGS["single_ar"], dof=1, action_names=("x",))
    assert query_macs(one, cut=1, kept_per_view=16).decode == 0
    seven = CONFIGS["single_ar"]
    dense = query_macs(seven, cut=1, kept_per_view=16)
    pruned = query_macs(seven, cut=1, kept_per_view=8)
    assert pruned.decode < dense.decode
    # six tokens, three layers above the cut, eight keys fewer, twice (scores and sum), width 32
    assert dense.decode - pruned.decode == 6 * 3 * 8 * 2 * 32


def test_pruning_never_beats_its_limit():
    config = CONFIGS["fused_ar"]
    limit = most_speedup(config, cut=2)
    dense = query_macs(config, cut=2, kept_per_view=16).total
    for kept in (1, 4, 8, 16):
        assert 1.0 <= dense / query_macs(config, cut=2, kept_per_view=kept).total < limit
