"""The pruned forward against slow, independent formulations of the same mathematics."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from policy.openvla.config import OpenVLAConfig, TextConfig, TowerConfig
from policy.openvla.decoder import rope_table, rotate
from policy.openvla.model import OpenVLAModel
from policy.openvla.runtime import Query, Runtime
from policy.openvla.stopwatch import Stopwatch
from pruning.history import HistoryKey, fresh
from pruning.registry import make_method
from pruning.runtime import Pruner

TOWER = TowerConfig("vit_test", 32, 8, 16, 3, 2, 32, film=True)
TEXT = TextConfig(160, 32, 48, 6, 4, 2)
PARALLEL = OpenVLAConfig(
    (TOWER,), TEXT, decoding="parallel", chunk=2, dof=3, views=("a", "b"), proprio_dim=4
)
CAUSAL = OpenVLAConfig((TOWER,), TEXT, dof=4, views=("a", "b"), proprio_dim=4)
FAMILIES = pytest.mark.parametrize("config", [PARALLEL, CAUSAL], ids=["parallel", "causal"])


def build(config: OpenVLAConfig, seed: int = 0) -> OpenVLAModel:
    torch.manual_seed(seed)
    model = OpenVLAModel(config).eval()
    for block in model.vision_backbone.featurizer.blocks:
        torch.nn.init.normal_(block.scale.weight, std=0.2)
    return model


def make_query(config: OpenVLAConfig, seed: int = 0, episode: int = 0, stamp: float = 0.0) -> Query:
    rng = torch.Generator().manual_seed(seed)
    per_view = 3 * len(config.towers)
    size = config.towers[0].image_size
    ids = torch.randint(3, 60, (1, 7), generator=torch.Generator().manual_seed(9))
    return Query(
        torch.randn(1, per_view * len(config.views), size, size, generator=rng),
        ids,
        torch.randn(1, config.proprio_dim, generator=rng) if config.proprio_dim else None,
        HistoryKey(episode, "x", (4, 4), config.views),
        stamp,
    )


def runtime(model: OpenVLAModel, name: str, keep: float, **fields: object) -> Runtime:
    method = make_method(name, keep=keep, **fields)
    return Runtime(model, Pruner(method, model.config.text.num_hidden_layers, model.causal))


def slow_logits(
    model: OpenVLAModel, query: Query, cut: int, kept: torch.Tensor, tail: list[int]
) -> torch.Tensor:
    """Logits of the action rows with full attention matrices, no cache, explicit masks.

    `tail` are action tokens already decoded (autoregressive); removed tokens are masked as keys
    from layer `cut` on instead of being taken out.
    """
    config, text = model.config, model.text(query.input_ids)
    x = model.sequence(model.see(query.pixels, text), text, query.proprio)
    layout = model.layout(query.input_ids)
    if tail:
        embedded = model.language_model.model.embed_tokens(torch.tensor([tail]))
        x = torch.cat([x, embedded], 1)
    s = x.shape[1]
    rope = rope_table(config.text, torch.arange(s))
    alive = torch.ones(s, dtype=torch.bool)
    alive[1 : 1 + layout.visual] = False
    for view, indices in enumerate(kept):
        alive[1 + view * layout.tokens + indices] = True
    heads = config.text.num_attention_heads
    share = heads // config.text.num_key_value_heads
    for index, layer in enumerate(model.language_model.model.layers):
        h = layer.input_layernorm(x)
        at = layer.self_attn
        q = rotate(at.q_proj(h).view(1, s, heads, -1).transpose(1, 2), rope)
        k = rotate(at.k_proj(h).view(1, s, heads // share, -1).transpose(1, 2), rope)
        v = at.v_proj(h).view(1, s, heads // share, -1).transpose(1, 2)
        logits = torch.einsum("bhqd,bhkd->bhqk", q, k.repeat_interleave(share, 1))
        logits = logits * config.text.head_dim**-0.5
        if model.causal:
            logits = logits.masked_fill(torch.ones(s, s).triu(1).bool(), -torch.inf)
        if index >= cut:
            logits = logits.masked_fill(~alive[None, None, None], -torch.inf)
        mixed = logits.softmax(-1).nan_to_num() @ v.repeat_interleave(share, 1)
        x = x + at.o_proj(mixed.transpose(1, 2).reshape(1, s, -1))
        x = x + layer.mlp(layer.post_attention_layernorm(x))
    rows = slice(s - 1, s) if model.causal else layout.action_rows
    return model.language_model.logits(x[:, rows])[0]


@FAMILIES
@pytest.mark.parametrize("name", ["random", "fastv", "prefill_mean", "vla_pruner"])
def test_pruned_query_equals_masked_full_attention(config: OpenVLAConfig, name: str) -> None:
    model = build(config)
    run = runtime(model, name, 0.25)
    query = make_query(config)
    state = fresh()
    for step in range(3):
        query = replace(make_query(config, seed=step), stamp_s=0.1 * step)
        answer = run.run(query, state, Stopwatch())
        state = answer.state
        assert answer.kept.shape == (2, 4)
        if model.causal:
            tail: list[int] = []
            for token in answer.tokens.tolist():
                logits = slow_logits(model, query, run.pruner.cut, answer.kept, tail)
                assert logits[0].argmax().item() == token
                tail.append(token)
        else:
            logits = slow_logits(model, query, run.pruner.cut, answer.kept, [])
            assert torch.equal(logits.argmax(-1), answer.tokens)


@FAMILIES
@pytest.mark.parametrize("name", ["random", "uniform", "fastv", "prefill_mean", "vla_pruner"])
def test_keeping_everything_is_the_dense_model_bit_for_bit(
    config: OpenVLAConfig, name: str
) -> None:
    config = replace(config, head="l1") if config.decoding == "parallel" else config
    model = build(config)
    query = make_query(config)
    dense = runtime(model, "dense", 1.0).run(query, fresh(), Stopwatch())
    full = runtime(model, name, 1.0).run(query, fresh(), Stopwatch())
    if config.head == "l1":
        assert torch.equal(dense.values, full.values)
    else:
        assert torch.equal(dense.tokens, full.tokens)
    assert torch.equal(dense.kept, full.kept)


@FAMILIES
def test_same_inputs_and_state_give_identical_sets(config: OpenVLAConfig) -> None:
    model = build(config)
    state = fresh()
    for step in range(4):
        query = replace(make_query(config, seed=step), stamp_s=0.1 * step)
        first = runtime(model, "vla_pruner", 0.25).run(query, state, Stopwatch())
        again = runtime(model, "vla_pruner", 0.25).run(query, state, Stopwatch())
        assert torch.equal(first.kept, again.kept)
        for a, b in zip(first.state.entries, again.state.entries, strict=True):
            np.testing.assert_array_equal(a, b)
        state = first.state


@FAMILIES
def test_a_new_episode_forgets(config: OpenVLAConfig) -> None:
    model = build(config)
    run = runtime(model, "vla_pruner", 0.25)
    state = fresh()
    for step in range(3):
        state = run.run(
            replace(make_query(config, seed=step), stamp_s=0.1 * step), state, Stopwatch()
        ).state
    query = make_query(config, seed=7, episode=1)
    carried = run.run(query, state, Stopwatch())
    clean = run.run(query, fresh(), Stopwatch())
    assert torch.equal(carried.kept, clean.kept)
    assert len(carried.state.entries) == 1


def test_release_profile_runs_its_first_queries_dense() -> None:
    model = build(PARALLEL)
    run = runtime(model, "vla_pruner", 0.25, compat="release_oft")
    state, widths = fresh(), []
    for step in range(5):
        answer = run.run(
            replace(make_query(PARALLEL, seed=step), stamp_s=0.1 * step), state, Stopwatch()
        )
        state = answer.state
        widths.append(answer.kept.shape[1])
        assert answer.dense_warmup == (step < 3)
    assert widths == [16, 16, 16, 4, 4]
    assert run.pruner.calls == 2
    assert run.pruner.dense_warmup_calls == 3


def test_history_holds_the_action_rows_of_its_layer() -> None:
    """The remembered attention equals the full softmax matrix, averaged by hand."""
    model = build(PARALLEL)
    run = runtime(model, "vla_pruner", 0.25, hold="zero", normalise=False, action_layer=4)
    query = make_query(PARALLEL)
    answer = run.run(query, fresh(), Stopwatch())
    layout = model.layout(query.input_ids)
    with torch.inference_mode():
        text = model.text(query.input_ids)
        x = model.sequence(model.see(query.pixels, text), text, query.proprio)
        rope = rope_table(model.config.text, torch.arange(x.shape[1]))
        index = [0]
        for view, kept in enumerate(answer.kept):
            index += (1 + view * layout.tokens + kept).tolist()
        index += range(1 + layout.visual, layout.length)
        for number, layer in enumerate(model.language_model.model.layers[:5]):
            if number == run.pruner.cut:
                x, rope = x[:, index], rope.at(torch.tensor(index))
            out = layer(x, rope, causal=False)
            x = out.x
        keys = out.cache.k.repeat_interleave(2, 1)
        attention = (out.q @ keys.transpose(-1, -2) * model.config.text.head_dim**-0.5).softmax(-1)
        gone = layout.visual - answer.kept.numel()
        rows = slice(layout.action_rows.start - gone, layout.action_rows.stop - gone)
        wanted = attention[0, :, rows, 1 : 1 + answer.kept.numel()].mean((0, 1)).view(2, -1)
    entry = answer.state.entries[0]
    for view in range(2):
        np.testing.assert_allclose(entry[view, answer.kept[view]], wanted[view], atol=1e-6)
        assert np.count_nonzero(entry[view]) == answer.kept.shape[1]


def test_history_of_a_decode_holds_every_action_row() -> None:
    """The last prompt row and each decoded one, read at once, are what they were one by one."""
    model = build(CAUSAL)
    run = runtime(model, "vla_pruner", 0.25, hold="zero", normalise=False, action_layer=4)
    query = make_query(CAUSAL)
    answer = run.run(query, fresh(), Stopwatch())
    layout, kept = model.layout(query.input_ids), answer.kept
    alive = [0]
    for view in range(2):
        alive += (1 + view * layout.tokens + kept[view]).tolist()
    with torch.inference_mode():
        text = model.text(query.input_ids)
        x = model.sequence(model.see(query.pixels, text), text, query.proprio)
        embedded = model.language_model.model.embed_tokens(answer.tokens[None, :-1])
        x = torch.cat([x, embedded], 1)
        rope = rope_table(model.config.text, torch.arange(x.shape[1]))
        index = torch.tensor([*alive, *range(1 + layout.visual, x.shape[1])])
        for number, layer in enumerate(model.language_model.model.layers[:5]):
            if number == run.pruner.cut:
                x, rope = x[:, index], rope.at(index)
            out = layer(x, rope, causal=True)
            x = out.x
        logits = out.q @ out.cache.k.repeat_interleave(2, 1).mT * model.config.text.head_dim**-0.5
        future = torch.ones(logits.shape[-2:], dtype=torch.bool).triu(1)
        attention = logits.masked_fill(future, -torch.inf).softmax(-1)
        wanted = attention[0, :, -CAUSAL.dof :, 1 : 1 + kept.numel()].mean((0, 1)).view(2, -1)
    for view in range(2):
        entry = answer.state.entries[0][view, kept[view]]
        np.testing.assert_allclose(entry, wanted[view], atol=1e-6)


def test_phases_add_up_to_the_query() -> None:
    model = build(CAUSAL)
    clock = Stopwatch()
    runtime(model, "vla_pruner", 0.25).run(make_query(CAUSAL), fresh(), clock)
    assert set(clock.phase_ms) == {
        "vision", "prefill_below", "selection", "prefill_above", "decode", "memory",
    }  # fmt: skip
    assert sum(clock.phase_ms.values()) == pytest.approx(clock.total_ms)


def test_fused_towers_read_their_own_channels() -> None:
    """Channels 0-2 of a view feed the first tower, 3-5 the second; views are independent."""
    towers = (TOWER, replace(TOWER, width=24, heads=3, class_token=True, registers=2))
    config = replace(PARALLEL, towers=towers)
    model = build(config)
    pixels = torch.randn(1, 12, 32, 32)
    text = model.text(torch.tensor([[1, 5, 6]]))
    base = model.see(pixels, text)
    changed = pixels.clone()
    changed[:, 6:] = torch.randn(1, 6, 32, 32)
    moved = model.see(changed, text)
    assert torch.allclose(base[:, 0], moved[:, 0], atol=1e-6)
    assert not torch.allclose(base[:, 1], moved[:, 1], atol=1e-3)
    backbone = model.vision_backbone(pixels, text.mean(1))
    alpha = model.vision_backbone.featurizer(pixels[:, :3], text.mean(1))
    assert torch.allclose(backbone[:, 0, :, :16], alpha, atol=1e-6)


@pytest.mark.parametrize("side", [32, 30])
def test_patches_equal_a_strided_convolution(side: int) -> None:
    """Also where the patch does not divide the image: the rest at the far edges is not read."""
    embed = build(PARALLEL).vision_backbone.featurizer.patch_embed
    pixels = torch.randn(2, 3, side, side)
    wanted = embed.proj(pixels).flatten(2).transpose(1, 2)
    assert torch.allclose(embed(pixels), wanted, atol=1e-5)
