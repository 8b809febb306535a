"""One matrix walks every registered method; then what each method alone promises."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pruning.base import Method, MethodError, default_cut
from pruning.methods.vla_pruner import VLAPruner
from pruning.registry import METHODS, make_method
from pruning.runtime import Pruner
from pruning.topk import ScoreError
from pruning.types import Budget, BudgetError, PruneContext
from tests.pruning import reference

N, LAYERS = 30, 12
KINDS = ("last", "prefill", "text", "action")
VARIANTS = [
    *((name, {}) for name in METHODS),
    ("vla_pruner", {"compat": "paper"}),
    ("vla_pruner", {"compat": "release"}),
    ("vla_pruner", {"compat": "release_oft"}),
    ("vla_pruner", {"semantic_rows": "text", "warmup": "current"}),
    ("vla_pruner", {"action_source": "current"}),
]
BUDGETS = [1.0, 0.5, 0.25, 0.125, 0.0625, 1, 7, N - 1, N]
MATRIX = [
    (name, fields, keep)
    for name, fields in VARIANTS
    for keep in ([1.0] if name == "dense" else BUDGETS)
]
SCORERS = [name for name in METHODS if METHODS[name](keep=1.0).needs]


def context(
    keep: float | int, groups: int = 2, dtype: torch.dtype = torch.float32, seed: int = 0
) -> PruneContext:
    draw = torch.Generator().manual_seed(seed)
    rows = {kind: torch.rand(groups, N, generator=draw).to(dtype) for kind in KINDS}
    features = torch.randn(groups, N, 16, generator=draw).to(dtype)
    history = torch.rand(groups, N, generator=draw)
    return PruneContext(features, Budget(keep).tokens(N), rows, history, seed=seed)


@pytest.mark.parametrize(("name", "fields", "keep"), MATRIX, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("groups", [1, 2, 6])
def test_every_method_keeps_its_promise(
    name: str, fields: dict, keep: float | int, dtype: torch.dtype, groups: int
) -> None:
    method = make_method(name, keep=keep, **fields)
    ctx = context(keep, groups, dtype)
    before = ctx.features.clone(), {k: v.clone() for k, v in ctx.attention.items()}
    kept = method.select(ctx).kept
    assert kept.shape == (groups, ctx.keep)
    assert kept.dtype == torch.int64
    assert (kept >= 0).all()
    assert (kept < N).all()
    assert (kept.diff(dim=1) > 0).all()  # sorted and unique
    assert kept.equal(method.select(ctx).kept)
    assert kept.equal(Pruner(method, LAYERS, causal=False).select(ctx).kept)
    if ctx.keep == N:
        assert kept.equal(torch.arange(N).expand(groups, N))
    assert ctx.features.equal(before[0])
    assert all(ctx.attention[k].equal(v) for k, v in before[1].items())


@pytest.mark.parametrize(
    ("name", "fields"), [v for v in VARIANTS if v[0] not in ("dense", "random")], ids=str
)
def test_groups_are_independent(name: str, fields: dict) -> None:
    method, ctx = make_method(name, keep=0.25, **fields), context(0.25, 3)
    whole = method.select(ctx).kept
    for group in range(3):
        one = slice(group, group + 1)
        alone = replace(
            ctx,
            features=ctx.features[one],
            attention={k: v[one] for k, v in ctx.attention.items()},
            history=ctx.history[one],
        )
        assert method.select(alone).kept[0].equal(whole[group])


@pytest.mark.parametrize("name", SCORERS)
def test_tokens_may_come_in_any_order(name: str) -> None:
    method, ctx = make_method(name, keep=0.25), context(0.25, 1, seed=3)
    shuffle = torch.randperm(N, generator=torch.Generator().manual_seed(1))
    moved = replace(
        ctx,
        features=ctx.features[:, shuffle],
        attention={k: v[:, shuffle] for k, v in ctx.attention.items()},
        history=ctx.history[:, shuffle],
    )
    back = shuffle[method.select(moved).kept[0]].sort().values
    assert back.equal(method.select(ctx).kept[0])


@pytest.mark.parametrize("name", SCORERS)
def test_nan_attention_is_refused(name: str) -> None:
    ctx = context(0.25)
    broken = {k: v.index_fill(1, torch.tensor([4]), float("nan")) for k, v in ctx.attention.items()}
    with pytest.raises(ScoreError, match="NaN"):
        make_method(name, keep=0.25).select(replace(ctx, attention=broken))


@pytest.mark.parametrize("name", SCORERS)
def test_missing_attention_is_named(name: str) -> None:
    with pytest.raises(MethodError, match="the model provided: none"):
        make_method(name, keep=0.25).select(replace(context(0.25), attention={}))


@pytest.mark.parametrize("keep", [0, -3, 0.0, -0.1, 1.1, float("nan"), "half", True, None])
@pytest.mark.parametrize("name", list(METHODS))
def test_impossible_budgets_are_refused_at_construction(name: str, keep: object) -> None:
    with pytest.raises(BudgetError, match="keep is"):
        make_method(name, keep=keep)


def test_budget_objects_are_accepted() -> None:
    assert make_method("fastv", keep=Budget(0.5)) == make_method("fastv", keep=0.5)


@pytest.mark.parametrize("name", [name for name in METHODS if name != "dense"])
@pytest.mark.parametrize("keep", [0, N + 1])
def test_a_count_outside_the_view_is_refused(name: str, keep: int) -> None:
    method = make_method(name, keep=1.0)
    with pytest.raises(BudgetError, match="tokens"):
        method.select(replace(context(0.5), keep=keep))


def test_dense_refuses_a_budget() -> None:
    with pytest.raises(MethodError, match="dense keeps every token"):
        make_method("dense", keep=0.5)


class Selecting(torch.nn.Module):
    """A selection as a graph."""

    def __init__(self, method: Method, ctx: PruneContext) -> None:
        super().__init__()
        self.method, self.ctx = method, ctx

    def forward(
        self, features: torch.Tensor, rows: torch.Tensor, history: torch.Tensor
    ) -> torch.Tensor:
        ctx = PruneContext(features, self.ctx.keep, dict.fromkeys(KINDS, rows), history)
        return self.method.select(ctx).kept


@pytest.mark.parametrize("name", [n for n, kind in METHODS.items() if kind.exportable])
def test_exportable_methods_trace_to_a_static_graph_with_the_same_sets(name: str) -> None:
    keep = 1.0 if name == "dense" else 0.25
    method, ctx = make_method(name, keep=keep), context(keep)
    inputs = ctx.features, ctx.attention["prefill"], ctx.history
    program = torch.export.export(Selecting(method, ctx), inputs)
    other = context(keep, seed=5)
    inputs = other.features, other.attention["prefill"], other.history
    assert program.module()(*inputs).equal(Selecting(method, ctx)(*inputs))


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
        assert (selection.kept[group].tolist(), selection.source[group].tolist()) == want


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
        kept, source = reference.vla_pruner(features[group], semantic[group], guide[group], 36)
        assert got.kept[group].tolist() == kept
        assert got.source[group].tolist() == source


def test_pools_that_agree_pass_unfiltered() -> None:
    ctx = context(8)
    ctx = replace(ctx, history=ctx.attention["prefill"])
    selection = make_method("vla_pruner", keep=8).select(ctx)
    assert selection.kept.equal(make_method("prefill_mean", keep=8).select(ctx).kept)
    assert (selection.source == 3).all()


def test_before_history_the_semantic_pool_stands_alone() -> None:
    ctx = replace(context(8), history=None)
    selection = make_method("vla_pruner", keep=8).select(ctx)
    assert selection.kept.equal(make_method("prefill_mean", keep=8).select(ctx).kept)
    assert (selection.source == 1).all()


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
    assert (make_method("vla_pruner", keep=0.25).select(context(0.25)).source >= 1).all()


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
        assert (selection.kept.tolist(), selection.source.tolist()) == ([[winner]], [[3]])
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
