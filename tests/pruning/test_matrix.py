"""One matrix walks every registered method and wrapper."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pruning.base import ATTENTION, NEEDS, Method, MethodError
from pruning.context import of_groups, of_tokens
from pruning.example import example_context
from pruning.ladder import rungs
from pruning.registry import METHODS, WRAPPERS, make_method
from pruning.runtime import Pruner
from pruning.topk import ScoreError
from pruning.types import Budget, BudgetError, PruneContext, Selection
from tests.pruning.matrix import LAYERS, PLAIN, VARIANTS, N, context

BUDGETS = [1.0, 0.5, 0.25, 0.0625, 1, 7, N - 1, N]
MATRIX = [
    (name, keep)
    for name in VARIANTS
    for keep in BUDGETS
    if isinstance(keep, float) or not (name.startswith("schedule") or name == "sparsevlm:paper")
]
SCORERS = [n for n in PLAIN if METHODS[n](keep=1.0).needs and n not in ("oracle", "zoo_prune")]
NAN, INF = float("nan"), float("inf")
VECTORS = frozenset({
    "features", "hidden", "text_features", "text_hidden", "tower_features", "tower_keys", "pixels",
    "heads",
})  # fmt: skip
"""Needs that are multiplied, not ranked: no number of them may be infinite."""
DECLARED = [
    (name, stage, need)
    for name in VARIANTS
    for stage in range(len(make_method(name, keep=0.25).stages(LAYERS, causal=True)))
    for need in sorted(make_method(name, keep=0.25).stage_needs(stage))
]


def counts(method: Method, ctx: PruneContext) -> set[int]:
    """Tokens that a method may keep of a view."""
    if method.name == "vla_cache":
        return {rung for rung in rungs(N, N) if rung >= ctx.keep} | {ctx.keep}
    return {*rungs(N, ctx.keep)} if method.adaptive else {ctx.keep}


@pytest.mark.parametrize(("name", "keep"), MATRIX, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("groups", [1, 3])
def test_every_method_keeps_its_promise(
    name: str, keep: float | int, dtype: torch.dtype, groups: int
) -> None:
    method, ctx = make_method(name, keep=keep), context(keep, groups, dtype)
    before = ctx.features.clone(), {k: v.clone() for k, v in ctx.attention.items()}
    selection = method.select(ctx)
    kept = selection.kept
    assert kept.dtype == torch.int64
    assert kept.shape[0] * selection.views == groups
    assert kept.shape[1] in {count * selection.views for count in counts(method, ctx)}
    assert (kept >= 0).all()
    assert (kept < N * selection.views).all()
    assert (kept.diff(dim=1) > 0).all()  # sorted and unique
    assert kept.equal(method.select(ctx).kept)
    assert kept.equal(Pruner(method, LAYERS, causal=False).select(ctx).kept)
    if ctx.keep == N:
        assert kept.equal(torch.arange(N).expand(groups, N))
    assert ctx.features.equal(before[0])
    assert all(ctx.attention[k].equal(v) for k, v in before[1].items())
    check_merge(selection)


@given(
    st.sampled_from(VARIANTS),
    st.integers(2, 40),
    st.one_of(st.floats(0.02, 1.0), st.integers(1, 40)),
    st.tuples(st.integers(1, 2), st.integers(1, 3)),
    st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
    st.integers(0, 1000),
)
@settings(derandomize=True, max_examples=250, deadline=None)
def test_any_budget_of_any_batch(
    name: str, n: int, keep: float, batch: tuple[int, int], dtype: torch.dtype, seed: int
) -> None:
    """Methods x budgets x dtypes x batch x views: exact and valid, or refused in one sentence."""
    samples, views = batch
    shape = (samples * views, n, 8)
    if isinstance(keep, int) and keep > n:
        with pytest.raises(BudgetError, match="a view has only"):
            example_context(shape, keep)
        return
    try:
        method = make_method(name, keep=keep)
    except MethodError as error:
        assert "give" in str(error)  # noqa: PT017 - a schedule refuses counts
        return
    ctx = replace(example_context(shape, keep, seed=seed, dtype=dtype), views=views)
    if name == "oracle" and samples > 1:
        with pytest.raises(MethodError, match="one sample"):
            method.select(ctx) if ctx.keep < n else method.select(replace(ctx, keep=n - 1))
        return
    pruner = Pruner(method, LAYERS, causal=False)  # checks sorted, unique, in range, count
    selection = pruner.select(ctx)
    assert len(selection.kept) * selection.views == samples * views
    assert all(value.shape[0] == samples * views for value in selection.memory.values())
    check_merge(selection)


@given(
    st.sampled_from([name for name in VARIANTS if make_method(name, keep=0.25).adaptive]),
    st.sampled_from([0.75, 0.5, 0.25, 0.125, 0.0625]),
    st.integers(0, 100),
)
@settings(derandomize=True, max_examples=100, deadline=None)
def test_keep_bounds_what_an_adaptive_method_chooses(name: str, keep: float, seed: int) -> None:
    """From above; from below where what is not kept is reused."""
    ctx = replace(context(keep, 2, seed=seed), memory={"vla_cache.pixels": context(keep).pixels})
    selection = make_method(name, keep=keep).select(ctx)
    count = selection.kept.shape[1]
    assert count >= ctx.keep if selection.reuse else count <= ctx.keep


def test_more_than_keep_may_be_computed() -> None:
    """Nothing moved, and 120 of 256 patches matter: the rung of a half is above a quarter."""
    ctx = context(0.25)
    still = replace(ctx, memory={"vla_cache.pixels": ctx.pixels})
    assert make_method("vla_cache", keep=0.25).select(still).kept.shape[1] == N // 2


def check_merge(selection: Selection) -> None:
    """Rows are means; what was not merged stays itself."""
    if selection.merge is None:
        return
    merge, kept = selection.merge, selection.kept
    assert merge.shape[:2] == kept.shape
    torch.testing.assert_close(merge.sum(-1), torch.ones(kept.shape))
    assert (merge >= 0).all()
    own = merge.gather(2, kept.unsqueeze(-1))
    assert (own > 0).all()
    others = merge.gather(2, kept.unsqueeze(1).expand(-1, kept.shape[1], -1))
    torch.testing.assert_close(others, torch.diag_embed(own.squeeze(-1)))  # kept ones are not given


@pytest.mark.parametrize("name", [n for n in VARIANTS if n not in ("oracle", "random")])
def test_groups_are_independent(name: str) -> None:
    method, ctx = make_method(name, keep=0.25), context(0.25, 3)
    if method.adaptive or name.startswith("quota"):
        pytest.skip("one rung, or one budget, for all views")
    whole = method.select(ctx).kept
    for group in range(3):
        alone = method.select(of_groups(ctx, slice(group, group + 1))).kept
        assert alone[0].equal(whole[group])


@pytest.mark.parametrize("name", SCORERS)
def test_tokens_may_come_in_any_order(name: str) -> None:
    if name in ("visionzip", "prumerge"):
        pytest.skip("an even stride follows the raster")
    method, ctx = make_method(name, keep=0.25), context(0.25, 1, seed=3)
    shuffle = torch.randperm(N, generator=torch.Generator().manual_seed(1))
    moved = of_tokens(ctx, shuffle[None])
    back = shuffle[method.select(moved).kept[0]].sort().values
    assert back.equal(method.select(ctx).kept[0])


@pytest.mark.parametrize(("name", "stage", "need"), DECLARED)
def test_what_is_not_finite_is_refused_wherever_a_method_looks(
    name: str, stage: int, need: str
) -> None:
    """One number of one declared need at a time; a score of infinity is still a rank."""
    method = make_method(name, keep=0.25)
    for value in (NAN, INF, -INF) if need in VECTORS else (NAN,):
        for ctx in spoilt(replace(context(0.25), stage=stage), need, value):
            with pytest.raises(ScoreError, match=r"is NaN|are not finite"):
                method.select(ctx)


def spoilt(ctx: PruneContext, need: str, value: float) -> Iterator[PruneContext]:
    """Contexts with one bad number each, where the need is met."""
    ctx = replace(ctx, memory={"vla_cache.pixels": ctx.pixels})
    if need == "action":  # read in place of the history where there is none
        ctx = replace(ctx, history=None)
    if need == "heads":
        yield replace(ctx, heads=ctx.heads._replace(q=with_one(ctx.heads.q, value)))
        yield replace(ctx, heads=ctx.heads._replace(k=with_one(ctx.heads.k, value)))
    elif need in ATTENTION:
        kind = "tower_cls" if need == "tower_attention" else need
        yield replace(ctx, attention={**ctx.attention, kind: with_one(ctx.attention[kind], value)})
    elif need in ("project", "output"):
        given = getattr(ctx, need)
        yield replace(ctx, **{need: lambda x: given(x) * value})
    else:
        yield replace(ctx, **{need: with_one(getattr(ctx, need), value)})


def with_one(values: torch.Tensor, value: float) -> torch.Tensor:
    """A copy with one number replaced."""
    spoilt = values.clone()
    spoilt[tuple(min(4, size - 1) for size in values.shape)] = value
    return spoilt


@pytest.mark.parametrize("name", [*SCORERS, "zoo_prune", "oracle"])
def test_missing_inputs_are_named(name: str) -> None:
    if name == "divprune":
        pytest.skip("looks at what is always there")
    ctx = context(0.25)
    with pytest.raises(MethodError, match="the model provided"):
        make_method(name, keep=0.25).select(PruneContext(ctx.features, ctx.keep, views=2))


@pytest.mark.parametrize("name", PLAIN)
def test_only_declared_inputs_are_read(name: str) -> None:
    method, ctx = make_method(name, keep=0.25), context(0.25)
    needs = method.stage_needs(0)
    assert needs <= NEEDS
    kinds = needs & ATTENTION
    attention = {k: v for k, v in ctx.attention.items() if k in kinds}
    if "tower_attention" in kinds:
        attention["tower_mean"] = ctx.attention["tower_mean"]
    fields = {field: getattr(ctx, field) for field in needs - ATTENTION - {"features"}}
    bare = PruneContext(ctx.features, ctx.keep, attention, seed=ctx.seed, views=ctx.views, **fields)
    method.select(bare)


@pytest.mark.parametrize("keep", [0, -3, 0.0, -0.1, 1.1, float("nan"), "half", True, None])
@pytest.mark.parametrize("name", [*METHODS, "quota+fastv", "smooth+fastv"])
def test_impossible_budgets_are_refused_at_construction(name: str, keep: object) -> None:
    with pytest.raises(BudgetError, match="keep is"):
        make_method(name, keep=keep)


def test_budget_objects_are_accepted() -> None:
    assert make_method("fastv", keep=Budget(0.5)) == make_method("fastv", keep=0.5)


@pytest.mark.parametrize("name", [name for name in PLAIN if name != "vla_cache"])
@pytest.mark.parametrize("keep", [0, N + 1])
def test_a_count_outside_the_view_is_refused(name: str, keep: int) -> None:
    method = make_method(name, keep=1.0)
    with pytest.raises(BudgetError, match="tokens"):
        method.select(replace(context(0.5), keep=keep))


@pytest.mark.parametrize("name", PLAIN)
def test_a_view_without_tokens_is_refused(name: str) -> None:
    empty = PruneContext(torch.zeros(2, 0, 16), 1)
    with pytest.raises(BudgetError, match="a view has 0"):
        Pruner(make_method(name, keep=0.25), LAYERS, causal=False).select(empty)


@pytest.mark.parametrize("name", SCORERS)
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_equal_tokens_and_scores_still_give_exact_counts(name: str, value: float) -> None:
    """All-zero and all-equal inputs: no NaN, no token twice, ties to the lowest index."""
    ctx = context(0.25)
    even = replace(
        ctx,
        features=torch.full_like(ctx.features, value),
        hidden=torch.full_like(ctx.hidden, value),
        tower_features=torch.full_like(ctx.tower_features, value),
        tower_keys=torch.full_like(ctx.tower_keys, value),
        transition=torch.full_like(ctx.transition, value),
        text_features=torch.full_like(ctx.text_features, value),
        text_rows=torch.full_like(ctx.text_rows, value),
        history=torch.full_like(ctx.history, value),
        heads=ctx.heads._replace(k=torch.full_like(ctx.heads.k, value)),
        attention={kind: torch.full_like(v, value) for kind, v in ctx.attention.items()},
    )
    method = make_method(name, keep=0.25)
    selection = method.select(even)
    assert selection.kept.shape[1] in counts(method, ctx)
    assert (selection.kept.diff(dim=1) > 0).all()
    check_merge(selection)


@pytest.mark.parametrize("name", SCORERS)
def test_minus_infinity_ranks_last(name: str) -> None:
    if METHODS[name](keep=1.0).needs - ATTENTION - {"history", "features"}:
        pytest.skip("not a plain ranking of attention")
    ctx = context(0.5)
    low = {k: v.index_fill(1, torch.arange(5), float("-inf")) for k, v in ctx.attention.items()}
    if name in ("pact", "divprune"):
        pytest.skip("shares of a mass, or no attention at all")
    kept = make_method(name, keep=0.5).select(replace(ctx, attention=low, history=None)).kept
    assert (kept >= 5).all()


@pytest.mark.parametrize("name", SCORERS)
def test_half_precision_overflow_is_refused_or_never_looked_at(name: str) -> None:
    """float16 embeddings beyond 65504 are infinite: the sentence names the token."""
    ctx = context(0.25, dtype=torch.float16)
    features = ctx.features.clone()
    features[0, 3, 2] = 65504.0
    features *= 2
    method = make_method(name, keep=0.25)
    spoilt = replace(ctx, features=features)
    if "features" in method.needs:
        with pytest.raises(ScoreError, match="features of token 3 in group 0 are not finite"):
            method.select(spoilt)
    else:
        assert method.select(spoilt).kept.equal(method.select(ctx).kept)


def test_dense_refuses_a_budget() -> None:
    with pytest.raises(MethodError, match="dense keeps every token"):
        make_method("dense", keep=0.5)


@pytest.mark.parametrize("name", list(WRAPPERS))
def test_a_wrapper_alone_says_what_it_lacks(name: str) -> None:
    with pytest.raises(MethodError, match=r"after a plus, e\.g\. " + name):
        make_method(name, keep=0.5)
