"""Every method on the OpenVLA family, against slow formulations of the same mathematics."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from policy.openvla.config import OpenVLAConfig
from policy.openvla.decoder import rope_table, rotate
from policy.openvla.model import OpenVLAModel
from policy.openvla.runtime import Answer, Query, Runtime
from policy.openvla.stopwatch import Stopwatch
from pruning.base import MethodError
from pruning.history import fresh
from pruning.registry import make_method
from pruning.runtime import Pruner
from pruning.types import PruneContext, Selection
from tests.policy.test_runtime import CAUSAL, PARALLEL, TOWER, build, make_query
from tests.pruning.matrix import VARIANTS

DINO = replace(TOWER, class_token=True, registers=2, width=24, heads=3)
FUSED = replace(PARALLEL, towers=(DINO, TOWER), views=("a", "b", "c"))
CONFIGS = {"parallel": PARALLEL, "causal": CAUSAL, "fused": FUSED}
DENSE_BEFORE = {"vla_pruner:paper", "vla_pruner:release", "vla_pruner:release_oft"}
ACTION_ROWS = {"vla_pruner:semantic_rows=text:warmup=current", "vla_pruner:action_source=current"}


class Recorder(Pruner):
    """A pruner that keeps what it saw and said."""

    def select(self, ctx: PruneContext) -> Selection:
        selection = super().select(ctx)
        self.said = [*getattr(self, "said", ()), (ctx, selection)]
        return selection


def recorded(model: OpenVLAModel, name: str, keep: float = 0.25) -> Runtime:
    layers = model.config.text.num_hidden_layers
    return Runtime(model, Recorder(make_method(name, keep=keep), layers, model.causal))


def run(runtime: Runtime, config: OpenVLAConfig, queries: int) -> list[tuple[Query, Answer]]:
    state, done = fresh(), []
    for step in range(queries):
        query = replace(make_query(config, seed=step), stamp_s=0.1 * step)
        answer = runtime.run(query, state, Stopwatch())
        state = answer.state
        done.append((query, answer))
    return done


@pytest.mark.parametrize("kind", list(CONFIGS))
@pytest.mark.parametrize("name", VARIANTS)
def test_every_method_runs_on_the_family(name: str, kind: str) -> None:
    config, model = CONFIGS[kind], build(CONFIGS[kind])
    if model.causal and name in ACTION_ROWS:
        with pytest.raises(MethodError, match="autoregressive"):
            recorded(model, name)
        return
    runtime = recorded(model, name)
    answers = run(runtime, config, 5 if name in DENSE_BEFORE else 2)
    runtime.pruner.prove_active()
    for _, answer in answers[-1:]:
        assert len(answer.kept) == len(config.views)
        total = sum(len(kept) for kept in answer.kept)
        assert total <= 16 * len(config.views)
        if not runtime.pruner.method.adaptive:
            least = runtime.pruner.stages[-1].keep.tokens(16)
            assert total == least * len(config.views)
            assert least == (2 if name == "sparsevlm:paper" else 4)
        assert (
            answer.sequence_tokens - answer.kept_sequence_tokens == 16 * len(config.views) - total
        )
        for kept in answer.kept:
            assert (kept.diff() > 0).all()
    again = run(recorded(model, name), config, len(answers))
    for (_, a), (_, b) in zip(answers, again, strict=True):
        assert all(torch.equal(x, y) for x, y in zip(a.kept, b.kept, strict=True))


def slow(
    model: OpenVLAModel,
    query: Query,
    stages: list[tuple[int, Selection]],
    tail: list[int],
) -> torch.Tensor:
    """Logits of the action rows: full matrices, dead tokens masked, merges written out."""
    config, text = model.config, model.text(query.input_ids)
    x = model.sequence(model.see(query.pixels, text), text, query.proprio)
    layout = model.layout(query.input_ids)
    if tail:
        x = torch.cat([x, model.language_model.model.embed_tokens(torch.tensor([tail]))], 1)
    s = x.shape[1]
    rope = rope_table(config.text, torch.arange(s))
    alive = torch.ones(s, dtype=torch.bool)
    heads = config.text.num_attention_heads
    share = heads // config.text.num_key_value_heads
    for index, layer in enumerate(model.language_model.model.layers):
        for cut, selection in stages:
            if cut == index:
                x = leave(x, alive, selection, layout.visual)
        h, at = layer.input_layernorm(x), layer.self_attn
        q = rotate(at.q_proj(h).view(1, s, heads, -1).transpose(1, 2), rope)
        k = rotate(at.k_proj(h).view(1, s, heads // share, -1).transpose(1, 2), rope)
        v = at.v_proj(h).view(1, s, heads // share, -1).transpose(1, 2)
        logits = torch.einsum("bhqd,bhkd->bhqk", q, k.repeat_interleave(share, 1))
        logits = logits * config.text.head_dim**-0.5
        if model.causal:
            logits = logits.masked_fill(torch.ones(s, s).triu(1).bool(), -torch.inf)
        logits = logits.masked_fill(~alive[None, None, None], -torch.inf)
        mixed = logits.softmax(-1).nan_to_num() @ v.repeat_interleave(share, 1)
        x = x + at.o_proj(mixed.transpose(1, 2).reshape(1, s, -1))
        x = x + layer.mlp(layer.post_attention_layernorm(x))
    rows = slice(s - 1, s) if model.causal else layout.action_rows
    return model.language_model.logits(x[:, rows])[0]


def leave(x: torch.Tensor, alive: torch.Tensor, selection: Selection, visual: int) -> torch.Tensor:
    """Mask what leaves and write merges, one row of the selection at a time."""
    living = torch.arange(1, 1 + visual)[alive[1 : 1 + visual]]
    per_row = len(living) // len(selection.kept)
    x, before = x.clone(), x
    alive[1 : 1 + visual] = False
    for row, kept in enumerate(selection.kept):
        own = living[row * per_row : (row + 1) * per_row]
        alive[own[kept]] = True
        if selection.merge is not None:
            for at, token in enumerate(own[kept]):
                weights = selection.merge[row, at]
                x[0, token] = sum(
                    w * before[0, other] for w, other in zip(weights, own, strict=True)
                )
    return x


REFERENCE = [
    "divprune", "adp", "mmtok", "cdpruner", "lightvla", "zoo_prune:directions=4", "dart",
    "sparsevlm", "sparsevlm:recycled=0.5:clusters=0.3", "sparsevlm:paper", "transprune",
    "tokenselect", "visionzip", "prumerge", "todre", "todre:tau=1", "pact", "oracle:rounds=2",
    "quota+adp", "quota+vla_pruner", "schedule+fastv", "reuse+fastv", "ladder+fastv",
]  # fmt: skip


@pytest.mark.parametrize("kind", ["parallel", "causal"])
@pytest.mark.parametrize("name", REFERENCE)
def test_pruned_queries_equal_masked_full_attention(name: str, kind: str) -> None:
    model = build(CONFIGS[kind])
    runtime = recorded(model, name)
    query, answer = run(runtime, CONFIGS[kind], 2)[-1]
    stages = runtime.pruner.stages
    said = [selection for _, selection in runtime.pruner.said[-len(stages) :]]
    plan = [(stage.cut, selection) for stage, selection in zip(stages, said, strict=True)]
    with torch.inference_mode():
        if not model.causal:
            assert torch.equal(slow(model, query, plan, []).argmax(-1), answer.tokens)
            return
        tail: list[int] = []
        for token in answer.tokens.tolist():
            assert slow(model, query, plan, tail)[0].argmax().item() == token
            tail.append(token)


@pytest.mark.parametrize("kind", ["parallel", "causal"])
@pytest.mark.parametrize(
    "name", ["divprune", "visionzip", "schedule+adp", "vla_cache", "quota+adp"]
)
def test_keeping_everything_is_the_dense_model_bit_for_bit(name: str, kind: str) -> None:
    config, model = CONFIGS[kind], build(CONFIGS[kind])
    (_, dense), (_, full) = (run(recorded(model, n, 1.0), config, 1)[0] for n in ("dense", name))
    assert torch.equal(dense.tokens, full.tokens)
    assert torch.equal(dense.kept, full.kept)


@pytest.mark.parametrize(
    ("name", "lengths"),
    [
        ("adp", [0] * 6),
        ("fastv", [2] * 2 + [0] * 4),
        ("schedule:cuts=1-3:keeps=0.5-0.25+fastv", [2, 1, 1, 0, 0, 0]),
    ],
)
def test_the_mean_length_over_the_layers_is_told(name: str, lengths: list[int]) -> None:
    """Lengths in steps: 2 for all visual tokens (32), 1 for half, 0 for a quarter of them."""
    _, answer = run(recorded(build(PARALLEL), name), PARALLEL, 1)[0]
    others = answer.sequence_tokens - 32
    visual = {2: 32, 1: 16, 0: 8}
    assert answer.layer_sequence_tokens == pytest.approx(
        sum(others + visual[step] for step in lengths) / 6
    )


# reuse


def moved(config: OpenVLAConfig) -> tuple[Query, Query]:
    """Two frames that differ in two patches of the first view."""
    first = make_query(config)
    pixels = first.pixels.clone()
    pixels[:, :3, 8:16, 8:24] += torch.randn(
        1, 3, 8, 16, generator=torch.Generator().manual_seed(4)
    )
    return first, replace(first, pixels=pixels, stamp_s=0.1)


@pytest.mark.parametrize("kind", ["parallel", "causal"])
def test_reused_tokens_attend_as_the_query_before_left_them(kind: str) -> None:
    config, model = CONFIGS[kind], build(CONFIGS[kind])
    first, second = moved(config)
    runtime = recorded(model, "vla_cache:relevant=0.1")
    before = runtime.run(first, fresh(), Stopwatch())
    assert [len(kept) for kept in before.kept] == [16, 16]
    after = runtime.run(second, before.state, Stopwatch())
    assert [len(kept) for kept in after.kept] == [4, 4]
    assert {5, 6} <= set(after.kept[0].tolist())  # what moved is computed
    idle = torch.ones(2, 16, dtype=torch.bool)
    for view, kept in enumerate(after.kept):
        idle[view, kept] = False
    with torch.inference_mode():
        old = keys_and_values(model, first, None, idle, runtime.pruner.cut)[1]
        logits = keys_and_values(model, second, old, idle, runtime.pruner.cut)[0]
    if model.causal:
        assert logits[0].argmax() == after.tokens[0]
    else:
        assert torch.equal(logits.argmax(-1), after.tokens)
    third = runtime.run(replace(second, stamp_s=0.2), after.state, Stopwatch())
    assert third.kept[0].shape == (4,)  # nothing moved: the least share
    dense = recorded(model, "dense", 1.0).run(second, fresh(), Stopwatch())
    assert not torch.equal(logits, keys_and_values(model, second, None, idle, 0)[0])
    assert dense.kept.shape == (2, 16)


def keys_and_values(
    model: OpenVLAModel, query: Query, old: list | None, idle: torch.Tensor, cut: int
) -> tuple[torch.Tensor, list]:
    """Full attention in which idle tokens have the keys and values of `old` from `cut` on."""
    config, text = model.config, model.text(query.input_ids)
    x = model.sequence(model.see(query.pixels, text), text, query.proprio)
    layout, s = model.layout(query.input_ids), x.shape[1]
    rope, found = rope_table(config.text, torch.arange(s)), []
    share = config.text.num_attention_heads // config.text.num_key_value_heads
    resting = torch.zeros(s, dtype=torch.bool)
    resting[1 : 1 + layout.visual] = idle.flatten()
    for index, layer in enumerate(model.language_model.model.layers):
        h, at = layer.input_layernorm(x), layer.self_attn
        q, k = (rotate(part, rope) for part in at.heads_of(h))
        v = at.v_proj(h).view(1, s, k.shape[1], -1).transpose(1, 2)
        if old is not None and index >= cut:
            k[:, :, resting], v[:, :, resting] = (part[:, :, resting] for part in old[index])
        found.append((k, v))
        logits = q @ k.repeat_interleave(share, 1).mT * config.text.head_dim**-0.5
        if model.causal:
            logits = logits.masked_fill(torch.ones(s, s).triu(1).bool(), -torch.inf)
        mixed = logits.softmax(-1) @ v.repeat_interleave(share, 1)
        x = x + at.o_proj(mixed.transpose(1, 2).reshape(1, s, -1))
        x = x + layer.mlp(layer.post_attention_layernorm(x))
    rows = slice(s - 1, s) if model.causal else layout.action_rows
    return model.language_model.logits(x[:, rows])[0], found


# what a method sees


def seen(kind: str, *needs: str) -> tuple[OpenVLAModel, Query, PruneContext]:
    """The context that a method with these needs gets at its cut."""
    names = {"tower_attention": "visionzip", "text_qk": "adp", "text_rows": "sparsevlm",
             "pixels": "vla_cache", "transition": "transprune", "heads": "tokenselect",
             "project": "zoo_prune:directions=1"}  # fmt: skip
    config, model = CONFIGS[kind], build(CONFIGS[kind])
    runtime = recorded(model, names[needs[0]])
    query = make_query(config)
    runtime.run(query, fresh(), Stopwatch())
    return model, query, runtime.pruner.said[0][0]


def test_tower_attention_is_that_of_the_full_matrix() -> None:
    """Class token of the one tower that has it; patch rows of both, averaged."""
    model, query, ctx = seen("fused", "tower_attention")
    frames = query.pixels.view(3, 6, 32, 32)
    language = model.text(query.input_ids).mean(1).expand(3, -1)
    means, keys = [], []
    with torch.inference_mode():
        for tower, pixels in (
            (model.vision_backbone.featurizer, frames[:, :3]),
            (model.vision_backbone.fused_featurizer, frames[:, 3:]),
        ):
            x = tower.patch_embed(pixels) + tower.pos_embed
            if tower.cls_token is not None:
                x = torch.cat(
                    [tower.cls_token.expand(3, -1, -1), tower.reg_token.expand(3, -1, -1), x], 1
                )
            for block in tower.blocks[:-2]:
                x = block(x, language)
            block = tower.blocks[-2]
            b, n, d = x.shape
            heads = block.attn.heads
            q, k, _ = (
                block.attn.qkv(block.norm1(x))
                .view(b, n, 3, heads, d // heads)
                .permute(2, 0, 3, 1, 4)
            )
            matrix = (q @ k.mT * (d // heads) ** -0.5).softmax(-1).mean(1)
            means.append(matrix[:, tower.prefix :, tower.prefix :].mean(1))
            keys.append(k.mean(1)[:, tower.prefix :])
            if tower.cls_token is not None:
                torch.testing.assert_close(ctx.attention["tower_cls"], matrix[:, 0, tower.prefix :])
    torch.testing.assert_close(ctx.attention["tower_mean"], sum(means) / 2)
    torch.testing.assert_close(ctx.tower_keys, torch.cat(keys, -1))


def test_a_tower_without_a_class_token_gives_the_mean_alone() -> None:
    assert set(seen("parallel", "tower_attention")[2].attention) == {"tower_mean"}


@pytest.mark.parametrize("kind", ["parallel", "causal"])
def test_products_before_the_first_layer(kind: str) -> None:
    model, query, ctx = seen(kind, "text_qk")
    text = model.text(query.input_ids)
    with torch.inference_mode():
        x = model.sequence(model.see(query.pixels, text), text, query.proprio)[0]
        layer, layout = model.language_model.model.layers[0], model.layout(query.input_ids)
        h = layer.input_layernorm(x)
        q = layer.self_attn.q_proj(h)[layout.text_start : layout.prompt_end].unflatten(1, (4, -1))
        k = layer.self_attn.k_proj(h)[1 : 1 + layout.visual].unflatten(1, (2, -1))
        k = k.repeat_interleave(2, 1)
        wanted = torch.einsum("thd,nhd->thn", q, k).mean((0, 1)) * q.shape[-1] ** -0.5
    torch.testing.assert_close(ctx.attention["text_qk"].flatten(), wanted)


@pytest.mark.parametrize("kind", ["parallel", "causal"])
def test_text_rows_average_to_the_text_attention(kind: str) -> None:
    _, query, ctx = seen(kind, "text_rows")
    assert ctx.text_rows.shape == (2, query.input_ids.shape[1] - 1, 16)
    model = build(CONFIGS[kind])
    runtime = recorded(model, "vla_pruner:semantic_rows=text")
    runtime.run(query, fresh(), Stopwatch())
    mean = runtime.pruner.said[0][0].attention["text"]
    torch.testing.assert_close(ctx.text_rows.mean(1), mean)


def test_pixels_are_those_of_the_camera() -> None:
    """Patches in raster order, values of the image before normalisation."""
    _, query, ctx = seen("parallel", "pixels")
    frame = query.pixels[0, 3:6] * 0.5 + 0.5
    wanted = frame[:, 8:16, 16:24].flatten()
    torch.testing.assert_close(ctx.pixels[1, 6], wanted)


def test_transition_is_measured_on_the_last_full_layer() -> None:
    model, query, ctx = seen("parallel", "transition")
    text = model.text(query.input_ids)
    with torch.inference_mode():
        x = model.sequence(model.see(query.pixels, text), text, query.proprio)
        layer = model.language_model.model.layers[0]
        rope = rope_table(model.config.text, torch.arange(x.shape[1]))
        normed = layer.input_layernorm(x)
        out = layer.self_attn(normed, rope, causal=False, past=None, mask=None).x
        wide = layer.post_attention_layernorm(x + out)
        total = sum(by_hand(a[0], b[0]) for a, b in ((normed, out), (wide, layer.mlp(wide))))
    torch.testing.assert_close(ctx.transition.flatten(), total[1:33], rtol=1e-4, atol=1e-6)


def by_hand(given: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
    """One token at a time; placeholders are zero vectors, whose cosine counts as 0."""
    lengths = [(float(a.norm()), float(b.norm())) for a, b in zip(given, out, strict=True)]
    turns = []
    for (a, b), x, y in zip(lengths, given, out, strict=True):
        cosine = float(torch.dot(x, y)) / (a * b) if a * b else 0.0
        turns.append(math.exp(1 - cosine))
    grown = [b / max(a, 1e-12) for a, b in lengths]
    return torch.tensor([g * e / sum(turns) for g, e in zip(grown, turns, strict=True)])


def test_the_projector_is_handed_over() -> None:
    _, _, ctx = seen("parallel", "project")
    with torch.inference_mode():
        torch.testing.assert_close(ctx.project(ctx.tower_features), ctx.features)
