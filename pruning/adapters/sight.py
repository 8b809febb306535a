"""What a method may look at, computed beside the model and only when it was declared.

Every sample is looked at by itself, without its padding, so that neither padding nor its neighbours
in the batch can change what is kept. Rows of attention are recomputed for the wanted rows only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from pruning.adapters.errors import AdapterError
from pruning.adapters.heads import ahead, rotate, scaled
from pruning.attention_rows import attention_rows
from pruning.base import ATTENTION, ROW_KINDS
from pruning.qk import mean_product, row_attention
from pruning.types import Heads, PruneContext

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from jaxtyping import Float
    from torch import Tensor

    from pruning.adapters.layout import Row, View
    from pruning.adapters.walk import Walk
    from pruning.base import Stage

ABOUT_TEXT = frozenset(
    {"text", "text_rows", "text_mass", "heads", "text_next", "text_qk", "text_features"}
    | {"text_hidden"}
)
PROBED = ROW_KINDS | {"text_rows", "text_mass", "heads"}
"""Needs that read queries and keys of the last full layer."""

KINDS = ATTENTION | {"tower_mean", "tower_cls"}
"""What stands in `PruneContext.attention`."""


class Seen(NamedTuple):
    """What one sample shows: by token `[l, ...]`, by text token `[t, ...]`, by both `[t, l]`."""

    token: dict[str, Tensor]
    text: dict[str, Tensor]
    both: dict[str, Tensor]


def groups_of(rows: Sequence[Row], alone: bool) -> list[list[View]]:
    """Views that one context holds: of one size, as many of every sample, samples side by side.

    Args:
        rows: the batch.
        alone: a context per sample, for methods whose groups share a count.
    """
    found: dict[tuple[int, ...], list[View]] = {}
    for number, row in enumerate(rows):
        sizes: dict[tuple[int, int, int], list[View]] = {}
        for view in row.views:
            if view.living:
                sizes.setdefault((view.kind, view.tokens, view.living), []).append(view)
        for size, views in sizes.items():
            key = (*size, len(views), number if alone else 0)
            found.setdefault(key, []).extend(views)
    return list(found.values())


def context(
    walk: Walk,
    views: Sequence[View],
    number: int,
    stage: Stage,
    seen: dict[int, Seen],
    **given: Any,
) -> PruneContext:
    """The context of some views of equal size.

    Args:
        walk: at the cut.
        views: of one size; those of a sample side by side.
        number: of the stage.
        stage: cut and budget.
        seen: what each sample shows.
        **given: further fields.
    """
    needs = walk.plan.pruner.method.stage_needs(number)
    fields = _of_samples(walk, views, seen) | _of_model(walk, views, needs)
    attention = {name: fields.pop(name) for name in list(fields) if name in KINDS}
    if "heads" in needs:
        q = fields.pop("heads.q").transpose(1, 2)
        fields["heads"] = Heads(q, fields.pop("heads.k").transpose(1, 2))
    if "text_mass" in needs:
        fields["text_mass"] = fields["text_mass"].mean(-1)
    per_sample = sum(view.row == views[0].row for view in views)
    keep = min(stage.keep.tokens(views[0].tokens), views[0].living)
    return PruneContext(
        attention=attention, keep=keep, views=per_sample, stage=number, **fields, **given
    )


def _of_samples(walk: Walk, views: Sequence[View], seen: dict[int, Seen]) -> dict[str, Any]:
    """What the samples show, by view."""
    fields: dict[str, Any] = {}
    one, shows = seen[views[0].row], [seen[view.row] for view in views]
    for name in one.token:
        values = [
            _of(walk, view, show.token[name]) for view, show in zip(views, shows, strict=True)
        ]
        fields[name] = torch.stack(values)
    for name in one.text:
        fields[name], fields["text_mask"] = _even([show.text[name] for show in shows])
    for name in one.both:
        pairs = zip(views, shows, strict=True)
        rows = [_of(walk, view, show.both[name].mT).mT for view, show in pairs]
        fields[name], fields["text_mask"] = _even(rows)
    return fields


def _of_model(walk: Walk, views: Sequence[View], needs: Collection[str]) -> dict[str, Any]:
    """What tower, projector and earlier answers show."""
    fields: dict[str, Any] = {}
    for name in _tower_kinds(needs, walk.tower[views[0].kind]):
        fields[name] = torch.stack([walk.shown(view, name) for view in views])
    if "history" in needs and walk.recall is not None:
        fields["history"] = _living(views, walk.recall.expected(views))
    if "project" in needs and walk.plan.tower is not None:
        fields["project"] = walk.plan.tower.project
    return fields


def look(walk: Walk, number: int, needs: Collection[str]) -> Seen:
    """What one sample of the batch shows at the cut."""
    row = walk.rows[number]
    if ABOUT_TEXT & set(needs) and row.views and not row.text:
        raise AdapterError(
            f"sample {number} has no text behind its pictures, and {walk.plan.pruner.method.name} "
            "reads it: put the question after the pictures"
        )
    text = slice(row.length - row.text, row.length)
    x, embeds = walk.living(number), walk.embeds_of(number)
    token: dict[str, Tensor] = {"features": embeds}
    words: dict[str, Tensor] = {}
    both: dict[str, Tensor] = {}
    if "hidden" in needs:
        token["hidden"] = x.float()
    if "text_hidden" in needs:
        words["text_hidden"] = x[text].float()
    if "text_features" in needs:
        words["text_features"] = embeds[text]
    if "transition" in needs and walk.transition is not None:
        token["transition"] = walk.transition[number].index_select(0, walk.where(number))
    if PROBED & set(needs):
        _look_back(walk, number, needs, text, Seen(token, words, both))
    if {"text_next", "text_qk"} & set(needs):
        token |= _look_ahead(walk, number, needs, text, x[None])
    return Seen(token, words, both)


def _look_back(walk: Walk, number: int, needs: Collection[str], text: slice, seen: Seen) -> None:
    """Attention at the last full layer, from queries and keys taken beside it."""
    q, k = walk.probed(number, walk.layer - 1)
    length, causal = k.shape[2], walk.causal
    kinds = ROW_KINDS & set(needs)
    if kinds:
        spans = {"last": slice(length - 1, length), "prefill": slice(0, length), "text": text}
        stride = walk.plan.pruner.row_stride
        wanted = {kind: spans[kind] for kind in kinds}
        rows = attention_rows(q, k, wanted, slice(None), causal=causal, row_stride=stride)
        seen.token.update({kind: row[0] for kind, row in rows.items()})
    if "text_rows" in needs:
        hidden = _later(length, text, k.device) if causal else None
        seen.both["text_rows"] = row_attention(q[:, :, text], k, slice(None), hidden)[0]
    if "text_mass" in needs:
        # A causal row sees nothing behind it, so that the question is out of every picture's sight.
        seen.token["text_mass"] = (
            k.new_zeros(length, dtype=torch.float32)
            if causal
            else row_attention(q, k, text)[0].sum(-1)
        )
    if "heads" in needs:
        seen.text["heads.q"] = q[0, :, text].transpose(0, 1)
        seen.token["heads.k"] = k[0].transpose(0, 1)


def _look_ahead(
    walk: Walk, number: int, needs: Collection[str], text: slice, x: Float[Tensor, "1 l d"]
) -> dict[str, Tensor]:
    """Text rows of the layer about to run, with and without rotary phases and softmax."""
    layer = walk.plan.layers[walk.layer]
    attention = walk.plan.family.attention(layer)
    q, k = ahead(layer, attention, x)
    q, found = scaled(q[:, :, text], attention), {}
    if "text_qk" in needs:
        found["text_qk"] = mean_product(q, k)[0]
    if "text_next" in needs:
        phases = walk.phases_of(number, attention)
        q = rotate(q[0], type(phases)(*(part[text] for part in phases)))[None]
        rows = attention_rows(
            q, rotate(k[0], phases)[None], {"text": slice(None)}, slice(None), causal=walk.causal
        )
        found["text_next"] = rows["text"][0]
    return found


def _living(views: Sequence[View], history: Tensor | None) -> Tensor | None:
    """What is expected of the tokens that live."""
    if history is None or views[0].kept is None:
        return history
    kept = torch.stack([view.kept for view in views if view.kept is not None])
    return history.to(kept.device).gather(1, kept)


def _tower_kinds(needs: Collection[str], shown: Collection[str]) -> list[str]:
    """What is asked of the tower; attention of the class token only where there is one."""
    names = [name for name in ("tower_features", "tower_keys") if name in needs]
    if "tower_attention" in needs:
        names += [kind for kind in ("tower_mean", "tower_cls") if kind in shown] or ["tower_mean"]
    return names


def _of(walk: Walk, view: View, values: Float[Tensor, "l ..."]) -> Float[Tensor, "n ..."]:
    start = walk.rows[view.row].start_of(view)
    return values[start : start + view.living]


def _even(rows: Sequence[Tensor]) -> tuple[Tensor, Tensor | None]:
    """Rows of different length as one tensor, zeros behind the short ones, and which are real."""
    lengths = [len(row) for row in rows]
    if min(lengths) == max(lengths):
        return torch.stack(list(rows)), None
    padded = torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True)
    places = torch.arange(padded.shape[1], device=padded.device)
    return padded, places < torch.tensor(lengths, device=padded.device)[:, None]


def _later(length: int, rows: slice, device: torch.device) -> Tensor:
    at = torch.arange(length, device=device)
    return at > at[rows, None]
