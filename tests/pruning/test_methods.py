"""What each of the older methods alone promises, and the cut."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pruning.base import Method, MethodError, default_cut
from pruning.methods.vla_pruner import VLAPruner
from pruning.registry import make_method
from pruning.runtime import Pruner
from pruning.topk import top_mask
from pruning.types import PruneContext
from tests.pruning import reference
from tests.pruning.matrix import N, context

# random


def test_random_is_set_by_its_seed() -> None:
    method = make_method("random", keep=0.25)
    draws = [method.select(context(0.25, seed=s)).kept for s in (1, 1, 2)]
    assert draws[0].equal(draws[1])
    assert not draws[0].equal(draws[2])
    assert not draws[0][0].equal(draws[0][1])


def test_random_is_uniform_over_tokens() -> None:
    method, ctx = make_method("random", keep=0.5), context(0.5, 100)
    rounds = [method.select(replace(ctx, seed=s)).kept for s in range(40)]
    hits = torch.bincount(torch.cat(rounds).flatten(), minlength=N)
    draws, p = 4000, 0.5
    sigma = (draws * p * (1 - p)) ** 0.5
    assert ((hits - draws * p).abs() < 5 * sigma).all()


# uniform


def test_uniform_takes_the_middle_of_equal_runs() -> None:
    assert make_method("uniform", keep=6).select(context(6)).kept[0].tolist() == [
        2,
        7,
        12,
        17,
        22,
        27,
    ]
    assert make_method("uniform", keep=1).select(context(1)).kept[0].tolist() == [15]


# fastv, prefill_mean


@pytest.mark.parametrize(("name", "kind"), [("fastv", "last"), ("prefill_mean", "prefill")])
def test_attention_methods_keep_the_most_attended(name: str, kind: str) -> None:
    ctx = context(0.25)
    want = [reference.top_k(row, ctx.keep) for row in ctx.attention[kind].numpy()]
    assert make_method(name, keep=0.25).select(ctx).kept.tolist() == want


# vla_pruner


@given(st.integers(0, 2**32 - 1), st.integers(1, N - 1), st.booleans())
@settings(derandomize=True, max_examples=60)
def test_vla_pruner_matches_the_reference(seed: int, keep: int, remembered: bool) -> None:
    rng = np.random.default_rng(seed)
    features = rng.integers(-2, 3, (2, N, 5)).astype(np.float32)  # exact products, many ties
    semantic, guide = (rng.integers(0, 6, (2, N)).astype(np.float32) for _ in range(2))
    ctx = PruneContext(
        torch.from_numpy(features),
        keep,
        {"prefill": torch.from_numpy(semantic)},
        torch.from_numpy(guide) if remembered else None,
    )
    selection = make_method("vla_pruner", keep=keep).select(ctx)
    for group in range(2):
        want = reference.vla_pruner(
            features[group], semantic[group], guide[group] if remembered else None, keep
        )
        assert selection.kept[group].tolist() == want


@pytest.mark.parametrize("seed", range(4))
def test_vla_pruner_matches_the_reference_at_the_size_of_mini(seed: int) -> None:
    """Two views of 144 tokens; coarse scores, so that ranks tie within and across the pools."""
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((2, 144, 16)).astype(np.float32)
    semantic, guide = (rng.integers(0, 40, (2, 144)).astype(np.float32) for _ in range(2))
    ctx = PruneContext(
        torch.from_numpy(features), 36, {"prefill": torch.from_numpy(semantic)},
        torch.from_numpy(guide),
    )  # fmt: skip
    got = make_method("vla_pruner", keep=36).select(ctx)
    for group in range(2):
        want = reference.vla_pruner(features[group], semantic[group], guide[group], 36)
        assert got.kept[group].tolist() == want


def test_pools_that_agree_pass_unfiltered() -> None:
    ctx = context(8)
    ctx = replace(ctx, history=ctx.attention["prefill"])
    selection = make_method("vla_pruner", keep=8).select(ctx)
    assert selection.kept.equal(make_method("prefill_mean", keep=8).select(ctx).kept)


def test_before_history_the_semantic_pool_stands_alone() -> None:
    ctx = replace(context(8), history=None)
    selection = make_method("vla_pruner", keep=8).select(ctx)
    assert selection.kept.equal(make_method("prefill_mean", keep=8).select(ctx).kept)


def test_current_action_rows_replace_a_missing_forecast() -> None:
    ctx = context(8)
    by_history = make_method("vla_pruner", keep=8).select(
        replace(ctx, history=ctx.attention["action"])
    )
    for fields in ({"warmup": "current"}, {"action_source": "current"}):
        method = make_method("vla_pruner", keep=8, **fields)
        assert "action" in method.needs
        assert method.select(replace(ctx, history=None)).kept.equal(by_history.kept)
    remembering = make_method("vla_pruner", keep=8, warmup="current")
    by_forecast = make_method("vla_pruner", keep=8).select(ctx)
    assert remembering.select(ctx).kept.equal(by_forecast.kept)
    assert not by_forecast.kept.equal(by_history.kept)
    method = make_method("vla_pruner", keep=8, action_source="current")
    assert "history" not in method.needs
    assert method.history is None


def test_every_kept_token_was_asked_for() -> None:
    ctx = context(0.25)
    wanted = top_mask(ctx.attention["prefill"], ctx.keep) | top_mask(ctx.history, ctx.keep)
    assert wanted.gather(1, make_method("vla_pruner", keep=0.25).select(ctx).kept).all()


def test_release_rounds_the_forecast_to_bf16_and_the_default_does_not() -> None:
    ctx = context(1, groups=1)
    guide = torch.zeros(1, N)
    guide[0, 5], guide[0, 9] = 0.5, 0.5001  # one value in bfloat16: the tie goes to token 5
    semantic = torch.zeros(1, N)
    for fields, winner in (({"compat": "release"}, 5), ({}, 9)):
        method = make_method("vla_pruner", keep=1, **fields)
        semantic[0, winner] = 1.0  # both pools want the winner, so that the filter has no say
        rows = dict.fromkeys(("last", "prefill"), semantic.clone())
        selection = method.select(replace(ctx, attention=rows, history=guide))
        assert selection.kept.tolist() == [[winner]]
        semantic[0, winner] = 0.0


def test_release_profile_is_the_published_code() -> None:
    method = VLAPruner.release(0.25)
    assert method == make_method("vla_pruner", keep=0.25, compat="release")
    assert method.needs == {"last", "features", "history"}
    rule = method.history
    assert (rule.window, rule.gamma, rule.hold, rule.normalise) == (3, 0.8, "zero", False)
    assert rule.dense_warmup
    assert Pruner(method, 32, causal=True).cut == 3
    assert Pruner(method, 32, causal=True).action_layer == 15
    oft = Pruner(make_method("vla_pruner", keep=0.25, compat="release_oft"), 32, causal=False)
    assert (oft.cut, oft.action_layer, oft.rows) == (4, 15, {"prefill"})


def test_fields_override_a_profile() -> None:
    method = make_method("vla_pruner", keep=0.25, compat="release", hold="decay")
    assert (method.hold, method.warmup) == ("decay", "dense")


@pytest.mark.parametrize("field", ["semantic_rows", "hold", "warmup", "action_source"])
def test_unknown_choices_list_the_valid_ones(field: str) -> None:
    with pytest.raises(MethodError, match=f"{field} is 'x': give one of"):
        make_method("vla_pruner", keep=0.25, **{field: "x"})


# the cut


@pytest.mark.parametrize(
    ("layers", "causal", "cut"),
    [
        (32, True, 3),
        (32, False, 4),
        (16, False, 3),
        (12, True, 2),
        (12, False, 2),
        (6, True, 2),
        (2, True, 1),
    ],
)
def test_default_cut_scales_the_released_rule(layers: int, causal: bool, cut: int) -> None:
    assert default_cut(layers, causal) == cut


def test_impossible_cuts_are_refused() -> None:
    with pytest.raises(MethodError, match="cut is -1"):
        make_method("random", keep=0.5, cut=-1)
    with pytest.raises(MethodError, match="none is left"):
        make_method("random", keep=0.5, cut=12).full_layers(12, True)
    with pytest.raises(MethodError, match="at least 1"):
        make_method("fastv", keep=0.5, cut=0).full_layers(12, True)
    assert make_method("random", keep=0.5, cut=0).full_layers(12, True) == 0


def test_a_method_must_stand_on_a_rung() -> None:
    with pytest.raises(NotImplementedError, match="score"):
        Method(keep=0.5).select(context(0.5))
