"""What each published method alone promises, against loops over its formulas."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pruning.base import MethodError
from pruning.ladder import nearest_rung, rungs
from pruning.methods.pact import divergence
from pruning.methods.prumerge import outliers
from pruning.registry import make_method
from pruning.types import PruneContext, Selection
from tests.pruning import reference
from tests.pruning import reference_methods as slow
from tests.pruning.matrix import N, context

FAST = settings(derandomize=True, max_examples=25, deadline=None)
DRAWS = st.tuples(st.integers(0, 10_000), st.integers(1, N - 1))


def selected(name: str, ctx: PruneContext) -> Selection:
    return make_method(name, keep=ctx.keep).select(ctx)


@given(DRAWS)
@FAST
def test_the_untrained_methods_follow_their_formulas(draw: tuple[int, int]) -> None:
    seed, keep = draw
    ctx = context(keep, 1, seed=seed)
    features, text = ctx.features[0].numpy(), ctx.text_features[0].numpy()
    tower = ctx.tower_features[0].numpy()
    want = {
        "divprune": reference.max_min(reference.cosine_distance(features), list(range(N)), keep),
        "sparsevlm": slow.sparsevlm(features, text, ctx.text_rows[0].numpy(), keep),
        "mmtok": slow.mmtok(features, tower, text, keep),
        "dart": slow.dart(ctx.hidden[0].numpy(), ctx.text_hidden[0].numpy(), keep, 4, 4),
        "todre": slow.max_sum(features, int(ctx.attention["tower_cls"][0].argmax()), keep),
        "adp": reference.top_k(ctx.attention["text_qk"][0].numpy(), keep),
    }
    for name, kept in want.items():
        assert selected(name, ctx).kept[0].tolist() == kept, name


@given(st.integers(0, 10_000), st.integers(1, 10))
@FAST
def test_cdpruner_is_a_conditioned_determinant(seed: int, keep: int) -> None:
    ctx = context(keep, 1, seed=seed)
    text, tower = ctx.text_features[0].numpy(), ctx.tower_features[0].numpy()
    relevance = np.array([
        sum(slow.cosine(token, word) for word in text) / len(text)
        for token in ctx.features[0].numpy()
    ])  # fmt: skip
    worth = (relevance - relevance.min()) / (relevance.max() - relevance.min())
    likeness = np.array([[slow.cosine(a, b) for b in tower] for a in tower])
    want = slow.dpp(worth[:, None] * likeness * worth[None], keep)
    assert selected("cdpruner", ctx).kept[0].tolist() == want


@given(st.integers(0, 10_000))
@FAST
def test_lightvla_counts_votes(seed: int) -> None:
    ctx = context(8, 1, seed=seed)
    votes = slow.lightvla(ctx.features[0].numpy(), ctx.text_features[0].numpy())
    score = make_method("lightvla", keep=8).score(ctx)[0].numpy()
    assert np.floor(score).astype(int).tolist() == votes.tolist()
    assert sum(votes) == N


@given(st.integers(0, 10_000), st.booleans())
@FAST
def test_pact_takes_the_lowest_rung_that_covers_both(seed: int, remembered: bool) -> None:
    ctx = context(0.75, 1, seed=seed)
    peaky = {"prefill": ctx.attention["prefill"] ** 6}
    history = ctx.history**6 if remembered else None
    ctx = replace(ctx, attention=peaky, history=history)
    seen = peaky["prefill"][0].double().numpy()
    acted = seen if history is None else history[0].double().numpy()
    for least, lowest in ((0.125, 4), (0.03125, 1), (0.25, 8)):
        steps = tuple(rung for rung in rungs(N, ctx.keep) if rung >= lowest)
        want = slow.pact(seen, acted, 0.3, steps)
        assert selected(f"pact:least={least}", ctx).kept[0].tolist() == want
        if least == 0.125:
            assert selected("pact", ctx).kept[0].tolist() == want


@pytest.mark.parametrize(("spec", "keep", "count"), [
    ("pact", 0.75, 4), ("pact:least=0.0625", 0.75, 2), ("pact", 0.0625, 2),
])  # fmt: skip
def test_pact_keeps_no_fewer_than_the_lowest_published_rung(
    spec: str, keep: float, count: int
) -> None:
    """One token holds all of the mass."""
    one = torch.zeros(1, N).index_fill(1, torch.tensor([3]), 1.0)
    ctx = replace(context(keep, 1), attention={"prefill": one}, history=one)
    assert make_method(spec, keep=keep).select(ctx).kept.shape == (1, count)


def test_divergence_is_in_bits() -> None:
    p, q = torch.tensor([[0.5, 0.5, 0.0, 0.0]]), torch.tensor([[0.0, 0.0, 0.5, 0.5]])
    assert divergence(p, q).item() == pytest.approx(1.0)
    assert divergence(p, p).item() == 0.0
    r = torch.tensor([[0.1, 0.2, 0.3, 0.4]])
    assert divergence(p, r).item() == pytest.approx(slow.divergence(p[0].numpy(), r[0].numpy()))


# fastv


@pytest.mark.parametrize(
    ("layers", "paper", "default"), [(32, 2, 3), (28, 2, 3), (64, 4, 6), (6, 1, 2)]
)
def test_fastv_cuts_where_its_paper_does_when_asked(layers: int, paper: int, default: int) -> None:
    cuts = [
        make_method(name, keep=0.5).full_layers(layers, causal=True)
        for name in ("fastv:paper", "fastv", "fastv:paper:cut=5")
    ]
    assert cuts == [paper, default, 5]
    assert make_method("fastv:paper", keep=0.5).at_cut(4).full_layers(layers, True) == paper
    assert make_method("fastv", keep=0.5).at_cut(4).full_layers(layers, True) == 4


def test_fastv_paper_ranks_as_fastv() -> None:
    ctx = context(8, 2)
    assert selected("fastv:paper", ctx).kept.equal(selected("fastv", ctx).kept)


# sparsevlm


def test_the_published_counts_are_met() -> None:
    method = make_method("sparsevlm:paper", keep=192 / 576)
    stages = method.stages(32, causal=True)
    assert [(stage.cut, stage.keep.tokens(576)) for stage in stages] == [
        (2, 300),
        (6, 200),
        (15, 110),
    ]
    half_way = make_method("sparsevlm:paper", keep=160 / 576).stages(32, True)
    assert [stage.keep.tokens(576) for stage in half_way] == [302, 155, 73]
    with pytest.raises(MethodError, match="give keep as one"):
        make_method("sparsevlm:paper", keep=64)


def test_recycled_tokens_are_means_of_the_next_best() -> None:
    ctx = context(8, 1, seed=2)
    plain = selected("sparsevlm", ctx)
    got = selected("sparsevlm:recycled=0.5:clusters=0.25", ctx)  # 11 recycled into 3
    score = make_method("sparsevlm", keep=8).score(ctx)[0].numpy()
    best, pool = reference.top_k(score, 5), reference.top_k(score, 19)
    assert plain.kept[0].tolist() == reference.top_k(score, 8)
    assert set(best) <= set(got.kept[0].tolist()) <= set(pool)
    sizes = [int((row > 0).sum()) for row in got.merge[0]]
    for token, size in zip(got.kept[0].tolist(), sizes, strict=True):
        assert size == 1 or token not in best
    assert sum(sizes) == 5 + 14  # everything recycled went somewhere
    outside = [i for i in range(N) if i not in pool]
    assert (got.merge[0][:, outside] == 0).all()


def test_padding_of_the_prompt_is_no_word() -> None:
    """Further words, masked, change nothing."""
    ctx = context(8, 2, seed=4)
    more = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(0)) * 3
    rows = torch.rand(2, 5, N, generator=torch.Generator().manual_seed(1))
    for front in (True, False):
        order = (lambda a, b: (b, a)) if front else (lambda a, b: (a, b))
        mask = torch.cat(order(torch.ones(2, 12).bool(), torch.zeros(2, 5).bool()), 1)
        padded = replace(
            ctx,
            text_mask=mask,
            text_features=torch.cat(order(ctx.text_features, more), 1),
            text_hidden=torch.cat(order(ctx.text_hidden, 9 * more), 1),
            text_rows=torch.cat(order(ctx.text_rows, rows), 1),
            heads=ctx.heads._replace(
                q=torch.cat(order(ctx.heads.q, torch.ones(2, 4, 5, 8)), 2)
            ),
        )  # fmt: skip
        for name in (
            "sparsevlm",
            "mmtok",
            "cdpruner",
            "lightvla",
            "dart",
            "tokenselect",
            "quota+adp",
        ):
            assert selected(name, padded).kept.equal(selected(name, ctx).kept), name


# the tower


def test_visionzip_keeps_dominant_tokens_and_merges_the_rest() -> None:
    ctx = context(16, 1, seed=1)
    got = selected("visionzip", ctx)
    score, keys = ctx.attention["tower_cls"][0].numpy(), ctx.tower_keys[0].numpy()
    dominant = reference.top_k(score, 14)  # 16 * 10 / 64 = 2.5: two contextual ones
    rest = [i for i in range(N) if i not in dominant]
    targets = [rest[0], rest[8]]
    assert got.kept[0].tolist() == sorted(dominant + targets)
    merge = np.zeros((16, N))
    for at, token in enumerate(got.kept[0].tolist()):
        merge[at, token] = 1.0
    for token in set(rest) - set(targets):
        near = max(targets, key=lambda target: slow.cosine(keys[token], keys[target]))
        merge[got.kept[0].tolist().index(near), token] = 1.0
    np.testing.assert_allclose(got.merge[0], merge / merge.sum(1, keepdims=True), atol=1e-6)


def test_without_a_class_token_all_patches_vote() -> None:
    ctx = context(8, 1)
    mean = replace(ctx, attention={"tower_mean": ctx.attention["tower_mean"]})
    as_class = replace(ctx, attention={"tower_cls": ctx.attention["tower_mean"]})
    for name in ("visionzip", "prumerge", "todre"):
        assert selected(name, mean).kept.equal(selected(name, as_class).kept)


@given(st.integers(0, 10_000))
@FAST
def test_prumerge_steps_on_the_rung_of_its_outliers(seed: int) -> None:
    ctx = context(15, 1, seed=seed)
    score = ctx.attention["tower_cls"][0] ** 8
    ctx = replace(ctx, attention={"tower_cls": score[None]})
    count = slow.outliers(score.double().numpy())
    assert outliers(score[None], 1.5).item() == count
    got = selected("prumerge", ctx)
    assert got.kept[0].tolist() == reference.top_k(score.numpy(), nearest_rung(count, N, 15))


def test_prumerge_plus_fills_with_an_even_stride() -> None:
    ctx = context(10, 1)
    score = torch.full((N,), 0.01)
    score[[3, 7, 8]] = 1.0
    got = selected("prumerge:plus", replace(ctx, attention={"tower_cls": score[None]}))
    assert got.kept[0].tolist() == [2, 3, 6, 7, 8, 10, 15, 19, 23, 27]  # three, and seven between
    score[[3, 6]] = score[[6, 3]]
    got = selected("prumerge:plus", replace(ctx, attention={"tower_cls": score[None]}))
    assert got.kept[0].tolist() == [0, 2, 6, 7, 8, 10, 15, 19, 23, 27]  # on the stride: next best


# transprune, todre


def test_transprune_cuts_thrice() -> None:
    stages = make_method("transprune", keep=0.125).stages(32, causal=True)
    assert [(s.cut, s.keep.keep) for s in stages] == [(7, 0.875), (9, 0.625), (12, 0.125)]
    assert [s.cut for s in make_method("transprune:cut=4", keep=0.25).stages(32, True)] == [4, 6, 9]
    assert [s.cut for s in make_method("transprune", keep=0.25).stages(6, True)] == [1, 2, 3]
    with pytest.raises(MethodError, match="do not fit"):
        make_method("transprune", keep=0.25).stages(3, True)


def test_transprune_adds_shares() -> None:
    ctx = context(8)
    total = ctx.transition / ctx.transition.sum(1, keepdim=True)
    asked = ctx.attention["text_next"]
    total = total + asked / asked.sum(1, keepdim=True)
    want = [reference.top_k(row.numpy(), 8) for row in total]
    assert selected("transprune", ctx).kept.tolist() == want


@pytest.mark.parametrize(("text", "vision", "left"), [
    (0.05, 0.05, 0), (0.2, 0.05, N), (0.05, 0.2, N), (0.2, 0.2, N),
])  # fmt: skip
def test_todre_drops_vision_when_nobody_looks(text: float, vision: float, left: int) -> None:
    ctx = replace(context(N, 2), stage=1, keep=N, text_mass=torch.full((2,), vision))
    share = {"text": torch.full((2, N), text / 2 / N)}  # two views share the text's attention
    kept = make_method("todre", keep=0.25).select(replace(ctx, attention=share)).kept
    assert kept.shape == (2, left)


def test_todre_asks_at_seven_eighths() -> None:
    assert [s.cut for s in make_method("todre", keep=0.25).stages(32, True)] == [0, 28]
    assert [s.cut for s in make_method("todre:tau=0", keep=0.25).stages(32, True)] == [0]


# zoo_prune, vla_cache, oracle


def test_a_linear_projector_is_refused() -> None:
    ctx = context(8)
    weight = torch.randn(16, 16, generator=torch.Generator().manual_seed(0))
    with pytest.raises(MethodError, match="linear projector"):
        selected("zoo_prune", replace(ctx, project=lambda x: x @ weight + 1.0))


def test_zoo_prune_measures_the_slope() -> None:
    """tanh is steep at 0 and flat far out: small tokens are the sensitive ones."""
    ctx = context(1, 1)
    size = torch.linspace(0.1, 5.0, N)[None, :, None]
    tower = torch.ones(1, N, 16) * size
    assert selected("zoo_prune", replace(ctx, tower_features=tower)).kept.tolist() == [[0]]


def test_the_first_frame_is_computed_and_the_next_only_where_it_moved() -> None:
    ctx = context(0.125, 2)
    method = make_method("vla_cache:relevant=0.1", keep=0.125)
    first = method.select(ctx)
    assert first.kept.shape == (2, N)
    assert first.reuse
    pixels = ctx.pixels.clone()
    pixels[0, [4, 9]] = 1 - pixels[0, [4, 9]]
    second = method.select(replace(ctx, pixels=pixels, memory=first.memory))
    assert second.kept.shape == (2, 8)  # five must be, of 30; the rung above is 8
    relevant = reference.top_k(ctx.attention["text"][0].numpy(), 3)
    assert {4, 9, *relevant} <= set(second.kept[0].tolist())
    still = method.select(replace(ctx, pixels=pixels, memory=second.memory))
    assert still.kept.shape == (2, 4)


def test_the_oracle_drops_what_changes_least() -> None:
    """The answer is a sum of squares: the oracle keeps the longest tokens."""
    ctx = context(6, 2)
    scaled = ctx.features.abs() * torch.linspace(1, 3, N)[None, :, None]

    def answer(kept: list[torch.Tensor]) -> torch.Tensor:
        lengths = [row[alive].square().sum() for row, alive in zip(scaled, kept, strict=True)]
        return torch.stack(lengths).sum()[None]

    got = selected("oracle:rounds=24", replace(ctx, output=answer))
    want = [reference.top_k(row.square().sum(1).numpy(), 6) for row in scaled]
    assert got.kept.tolist() == want
    with pytest.raises(MethodError, match="one sample"):
        selected("oracle", replace(ctx, views=1))


@pytest.mark.parametrize(("spec", "message"), [
    ("dart:pivots=0", "at least one visual pivot"),
    ("mmtok:alpha=-1", "at least 0"),
    ("todre:tau=2", "0 to 1"),
    ("tokenselect:pool=2", "odd width"),
    ("visionzip:contextual=1.0", "below 1"),
    ("prumerge:iqr=-1", "at least 0"),
    ("pact:theta=0", r"\(0, 1\]"),
    ("pact:least=0", r"\(0, 1\]"),
    ("zoo_prune:directions=0", "at least 1"),
    ("vla_cache:static=1.5", "0 to 1"),
    ("oracle:rounds=0", "1 or more"),
    ("sparsevlm:recycled=2", "0 to 1"),
])  # fmt: skip
def test_impossible_fields_are_refused(spec: str, message: str) -> None:
    with pytest.raises(MethodError, match=message):
        make_method(spec, keep=0.25)
