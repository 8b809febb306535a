"""Parts of a context, and what a method says when a part is missing."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

from pruning.base import MethodError
from pruning.topk import no_nan
from pruning.types import Heads, PruneContext

if TYPE_CHECKING:
    from jaxtyping import Float, Int64
    from torch import Tensor

TOKEN_AXIS = {
    "features": 1, "history": 1, "text_rows": 2, "hidden": 1, "tower_features": 1,
    "tower_keys": 1, "transition": 1, "pixels": 1,
}  # fmt: skip
BY_GROUP = (*TOKEN_AXIS, "text_features", "text_mask", "text_hidden", "text_mass")


def part(ctx: PruneContext, name: str) -> Any:
    """One optional field of a context.

    Raises:
        MethodError: when the model did not provide it.
    """
    value = getattr(ctx, name)
    if value is None:
        raise MethodError(f"{name} is needed, the model provided: {', '.join(provided(ctx))}")
    return value


def provided(ctx: PruneContext) -> list[str]:
    """Names of the fields and attention kinds that are there."""
    absent = {"keep", "seed", "stage", "views", "attention", "memory"}
    names = [
        f.name for f in fields(ctx) if f.name not in absent and getattr(ctx, f.name) is not None
    ]
    return sorted([*names, *ctx.attention])


def saliency(ctx: PruneContext) -> Float[Tensor, "g n"]:
    """Attention in the vision tower: of the class token where there is one, else of all patches.

    Raises:
        MethodError: when the model provided neither.
        ScoreError: on a NaN (CPU only).
    """
    for kind in ("tower_cls", "tower_mean"):
        if kind in ctx.attention:
            return no_nan(ctx.attention[kind].float())
    raise MethodError(
        f"attention inside the vision tower is needed, the model provided: "
        f"{', '.join(provided(ctx))}"
    )


def of_groups(ctx: PruneContext, rows: slice, keep: int | None = None) -> PruneContext:
    """Some groups of a context, each as one view of its own, with another budget if asked for."""
    present: dict[str, Any] = {
        name: v[rows] for name in BY_GROUP if (v := getattr(ctx, name)) is not None
    }
    return replace(
        ctx,
        keep=ctx.keep if keep is None else keep,
        attention={kind: value[rows] for kind, value in ctx.attention.items()},
        memory={name: value[rows] for name, value in ctx.memory.items()},
        heads=None if ctx.heads is None else Heads(ctx.heads.q[rows], ctx.heads.k[rows]),
        views=1,
        **present,
    )


def of_tokens(ctx: PruneContext, index: Int64[Tensor, "g k"]) -> PruneContext:
    """The context of some tokens of every group, in the given order."""
    present: dict[str, Any] = {
        name: take(v, index, axis)
        for name, axis in TOKEN_AXIS.items()
        if (v := getattr(ctx, name)) is not None
    }
    heads = ctx.heads
    return replace(
        ctx,
        attention={kind: value.gather(1, index) for kind, value in ctx.attention.items()},
        heads=None if heads is None else Heads(heads.q, take(heads.k, index, 2)),
        **present,
    )


def take(values: Tensor, index: Int64[Tensor, "g k"], axis: int = 1) -> Tensor:
    """Some tokens of every group; `axis` is that of the tokens, the first one that of groups."""
    shape = [index.shape[0], *[1] * (values.ndim - 1)]
    shape[axis] = index.shape[1]
    spread = list(values.shape)
    spread[axis] = index.shape[1]
    return values.gather(axis, index.view(shape).expand(spread))
