"""Composition: what each wrapper promises, and how they are named."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from pruning.base import MethodError
from pruning.history import HistoryKey, fresh
from pruning.registry import make_method
from pruning.runtime import Pruner
from pruning.types import PruneContext, Selection
from pruning.wrappers.base import chain
from tests.pruning import reference
from tests.pruning.matrix import N, context

KEEP = 8


def select(name: str, ctx: PruneContext) -> Selection:
    return make_method(name, keep=ctx.keep).select(ctx)


# names


def test_a_plus_puts_one_method_into_another() -> None:
    method = make_method("quota:power=1+smooth:weight=0.9+fastv:cut=3", keep=0.25)
    assert [one.name for one in chain(method)] == ["quota", "smooth", "fastv"]
    assert [one.keep for one in chain(method)] == [0.25] * 3
    assert (method.power, method.inner.weight) == (1.0, 0.9)
    assert method.full_layers(12, causal=True) == 3


def test_options_belong_to_the_method_that_they_follow() -> None:
    method = make_method("schedule:cuts=2-4-6:keeps=0.5-0.3-0.2+vla_pruner:hold=zero", keep=0.2)
    assert (method.cuts, method.keeps, method.inner.hold) == ((2, 4, 6), (0.5, 0.3, 0.2), "zero")
    release = make_method("reuse+vla_pruner", keep=0.25, compat="release", window=1)
    assert (release.inner.hold, release.inner.window) == ("zero", 1)


@pytest.mark.parametrize(("spec", "message"), [
    ("quota+", "unknown pruning method ''"),
    ("qota+fastv", "did you mean 'quota'"),
    ("fastv+divprune", "fastv wraps no other method: choose from quota"),
    ("quota:cut=3+fastv", "cuts where the method inside does"),
    ("quota:keep=0.5+fastv", "give it once"),
    ("smooth+divprune", "divprune chooses without"),
    ("ladder+vla_pruner", "vla_pruner chooses without"),
    ("smooth+smooth+fastv", "smooth is named twice"),
    ("quota+pact", "pact may not"),
    ("quota+reuse+fastv", "leave one out"),
    ("smooth:weight=1+fastv", "below 1"),
    ("ladder:mass=0+fastv", r"\(0, 1\]"),
    ("reuse:longest=0+fastv", "at least 1"),
    ("quota:weights=0.5-x+fastv", "give a number"),
    ("schedule:cuts=4-2:keeps=0.5-0.25+fastv", "deeper than the one before"),
    ("schedule:cuts=2-4:keeps=0.5-0.3+fastv", "the last being 0.25"),
    ("schedule:cuts=2-4:keeps=0.25+fastv", "2 cuts and 1 keeps"),
])  # fmt: skip
def test_what_does_not_fit_is_refused(spec: str, message: str) -> None:
    with pytest.raises(MethodError, match=message):
        make_method(spec, keep=0.25)


@pytest.mark.parametrize(("spec", "message"), [
    ("smooth+transprune", "smooth needs one cut"),
    ("reuse+todre", "one cut and one count"),
    ("reuse+quota+fastv", "one cut and one count"),
    ("quota+sparsevlm:paper", "quota needs one cut"),
    ("schedule:cuts=0-4:keeps=0.5-0.25+fastv", "must be 1 or more"),
    ("schedule:cuts=2-12:keeps=0.5-0.25+fastv", "do not fit"),
])  # fmt: skip
def test_what_does_not_fit_the_decoder_is_refused(spec: str, message: str) -> None:
    with pytest.raises(MethodError, match=message):
        Pruner(make_method(spec, keep=0.25), 12, causal=False)


def test_a_schedule_goes_by_ratios() -> None:
    with pytest.raises(MethodError, match="give a ratio"):
        make_method("schedule+fastv", keep=64)


# quota


def test_relevant_views_get_more_and_the_total_is_exact() -> None:
    ctx = context(KEEP, 3)
    words = ctx.text_features[0]
    features = ctx.features.clone()
    features[1, :12] = words  # the second view shows what is asked for
    selection = select("quota+divprune", replace(ctx, features=features))
    assert selection.views == 3
    assert selection.kept.shape == (1, 3 * KEEP)
    counts = torch.bincount(selection.kept[0] // N, minlength=3).tolist()
    assert counts[1] > max(counts[0], counts[2])
    assert min(counts) >= KEEP // 4


def test_fixed_weights_split_as_published_for_adp() -> None:
    ctx = context(10, 2)
    selection = select("quota:weights=0.4-0.6+adp", ctx)
    scores = ctx.attention["text_qk"].numpy()
    want = reference.top_k(scores[0], 8) + [N + i for i in reference.top_k(scores[1], 12)]
    assert selection.kept[0].tolist() == want
    with pytest.raises(MethodError, match="2 weights for 3 views"):
        select("quota:weights=0.4-0.6+adp", context(10, 3))


def test_quota_draws_for_each_view_anew() -> None:
    ctx = context(10, 2)
    first, second = select("quota:weights=1-1+random", ctx).kept[0].view(2, 10)
    assert not (first % N).equal(second % N)
    again = select("quota:weights=1-1+random", ctx).kept[0]
    assert torch.cat([first, second]).equal(again)


def test_samples_of_a_batch_split_their_own_budgets() -> None:
    ctx = replace(context(KEEP, 4), views=2)
    whole = select("quota+fastv", ctx)
    assert whole.kept.shape == (2, 2 * KEEP)
    for sample in range(2):
        rows = slice(2 * sample, 2 * sample + 2)
        alone = replace(
            context(KEEP, 4), views=2, features=ctx.features[rows],
            text_features=ctx.text_features[rows],
            attention={kind: value[rows] for kind, value in ctx.attention.items()},
        )  # fmt: skip
        assert select("quota+fastv", alone).kept[0].equal(whole.kept[sample])


def test_merges_stay_within_their_view() -> None:
    selection = select("quota:weights=1-2+visionzip", context(KEEP, 2))
    views = selection.kept[0] // N
    outside = selection.merge[0].unflatten(1, (2, N)).sum(-1).gather(1, 1 - views[:, None])
    assert (outside == 0).all()
    torch.testing.assert_close(selection.merge.sum(-1), torch.ones(1, 2 * KEEP))


# smooth, reuse, ladder


def test_smoothing_is_a_running_mean() -> None:
    method, state = make_method("smooth:weight=0.5+fastv", keep=KEEP), None
    mean = None
    for step in range(4):
        ctx = context(KEEP, 2, seed=step)
        score = ctx.attention["last"]
        mean = score if mean is None else 0.5 * mean + 0.5 * score
        selection = method.select(replace(ctx, memory=state or {}))
        state = selection.memory
        assert selection.kept.tolist() == [reference.top_k(row.numpy(), KEEP) for row in mean]


def test_a_set_stands_while_the_picture_does() -> None:
    method, ctx = make_method("reuse:cosine=0.9:longest=3+random", keep=KEEP), context(KEEP, 2)
    first = method.select(ctx)
    for seed in (1, 2):  # other draws, were it asked
        again = method.select(replace(ctx, seed=seed, memory=first.memory))
        assert again.kept.equal(first.kept)
    second = method.select(replace(ctx, seed=5, memory=again.memory))
    assert second.kept.equal(first.kept)
    third = method.select(replace(ctx, seed=6, memory=second.memory))
    assert not third.kept.equal(first.kept)  # the longest time is over


def test_one_changed_token_of_one_view_is_enough() -> None:
    method, ctx = make_method("reuse+random", keep=KEEP), context(KEEP, 2)
    first = method.select(ctx)
    features = ctx.features.clone()
    features[1, 3] = -features[1, 3]
    moved = method.select(replace(ctx, features=features, seed=9, memory=first.memory))
    fresh_set = make_method("random", keep=KEEP).select(replace(ctx, seed=9)).kept
    assert moved.kept[0].equal(first.kept[0])
    assert moved.kept[1].equal(fresh_set[1])


def test_reuse_forgets_another_budget_and_refuses_merges() -> None:
    ctx = context(KEEP, 2)
    memory = select("reuse+fastv", ctx).memory
    smaller = replace(ctx, keep=4, memory=memory)
    assert select("reuse+fastv", smaller).kept.shape == (2, 4)
    with pytest.raises(MethodError, match="merges from one frame"):
        select("reuse+visionzip", ctx)


def test_the_ladder_takes_the_lowest_rung_that_holds_enough() -> None:
    ctx = context(16, 1)
    score = torch.zeros(1, N)
    score[0, [5, 6, 7, 8]] = 1.0
    peaky = replace(ctx, attention={"last": score + 1e-6})
    assert select("ladder:mass=0.9+fastv", peaky).kept.tolist() == [[5, 6, 7, 8]]
    assert select("ladder:mass=0.3+fastv", peaky).kept.tolist() == [[5, 6]]
    flat = replace(ctx, attention={"last": torch.ones(1, N)})
    assert select("ladder:mass=0.9+fastv", flat).kept.shape == (1, 16)


# schedule


def test_budgets_fall_to_keep_in_equal_ratios() -> None:
    stages = make_method("schedule+fastv", keep=0.125).stages(32, causal=True)
    assert [stage.cut for stage in stages] == [3, 16, 24]
    assert [stage.keep.keep for stage in stages] == pytest.approx([0.5, 0.25, 0.125])
    before = make_method("schedule+divprune", keep=0.125).stages(32, causal=True)
    assert [stage.cut for stage in before] == [0, 16, 24]


# through a pruner


def test_memory_travels_in_the_state_and_is_forgotten_with_it() -> None:
    key = HistoryKey(0, "stack the cubes", (5, 6), ("front", "wrist"))
    pruner = Pruner(make_method("smooth+fastv", keep=KEEP), 12, causal=True)
    state = pruner.begin(fresh(), key, 0.0).state
    selection = pruner.select(replace(context(KEEP, 2), memory=state.memory))
    state = pruner.finish(state, None, None, selection.memory)
    assert set(pruner.begin(state, key, 0.1).state.memory) == {"smooth.score"}
    assert not pruner.begin(state, key._replace(episode=1), 0.1).state.memory
    assert not pruner.begin(state, key, 60.0).state.memory


def test_flat_attention_of_uneven_views_is_remembered_in_place() -> None:
    key = HistoryKey(0, "x", (2, 3), ("front", "wrist"))
    pruner = Pruner(make_method("quota+vla_pruner:hold=zero:normalise=false", keep=2), 12, True)
    state = pruner.begin(fresh(), key, 0.0).state
    kept = torch.tensor([1, 6, 8, 11])
    state = pruner.finish(state, torch.tensor([0.1, 0.2, 0.3, 0.4]), kept)
    want = [[0, 0.1, 0, 0, 0, 0], [0.2, 0, 0.3, 0, 0, 0.4]]
    torch.testing.assert_close(torch.from_numpy(state.entries[0].copy()), torch.tensor(want))
