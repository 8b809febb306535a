"""Pruning written down a second time, slowly: full attention matrices, and masks for gathers.

A token that has left is one that no row sees any more. So the peer runs all tokens through all
layers, with eager attention, and hides the keys of those that were not kept from the cut on. Rows
of survivors must come out the same as where the others were really gone.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from pruning.adapters.api import family_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.pruning.adapters.models import Drawn


def layers_of(model: Any) -> Any:
    family = family_of(model)
    return family.decoder(family.core(model)).layers


def view_slots(drawn: list[Drawn], inputs: dict[str, Any], tokens: tuple[int, ...]) -> list[list]:
    """Slots of every view of every sample, from how the samples were drawn."""
    slots = []
    for one, ids in zip(drawn, inputs["input_ids"], strict=True):
        visual = torch.isin(ids, torch.tensor(tokens)).nonzero()[:, 0]
        slots.append(list(visual[: sum(one.views)].split(one.views)))
    return slots


def full_attention(model: Any, inputs: dict[str, Any], layer: int) -> torch.Tensor:
    """The whole matrix of one layer, mean over heads, `[b, s, s]`."""
    return by_head(model, inputs, layer).mean(1)


def by_head(model: Any, inputs: dict[str, Any], layer: int) -> torch.Tensor:
    """The whole matrices of one layer, `[b, h, s, s]`."""
    model.set_attn_implementation("eager")
    try:
        out = model(**inputs, output_attentions=True, use_cache=False)
    finally:
        model.set_attn_implementation("sdpa")
    return out.attentions[layer].float()


def best(
    attention: torch.Tensor, real: torch.Tensor, views: list[list], keep: float, rows: str
) -> list[list[list[int]]]:
    """Kept indices by sample and view: the columns that the given rows look at most."""
    chosen = []
    for matrix, mask, mine in zip(attention, real.bool(), views, strict=True):
        wanted = matrix[mask]
        score = wanted[-1] if rows == "last" else wanted.mean(0)
        of_sample = []
        for slots in mine:
            order = sorted(range(len(slots)), key=lambda at: (-score[slots[at]].item(), at))
            of_sample.append(sorted(order[: max(1, int(len(slots) * keep + 0.5))]))
        chosen.append(of_sample)
    return chosen


@contextmanager
def hidden_from(
    model: Any, cut: int, gone: list[torch.Tensor], renumber: bool = False
) -> Iterator[None]:
    """From layer `cut` on no row sees the given slots, and none counts them, if asked for."""
    handles = []
    family = family_of(model)
    rotary = family.decoder(family.core(model)).rotary_emb

    def hide(module: Any, args: tuple, kwargs: dict[str, Any]) -> tuple:
        mask = kwargs["attention_mask"].clone()
        rows = mask.expand(len(gone), *mask.shape[1:]).clone()
        for at, slots in enumerate(gone):
            rows[at, :, :, slots] = torch.finfo(rows.dtype).min
        kwargs = {**kwargs, "attention_mask": rows}
        if renumber:
            kwargs["position_embeddings"] = rotary(args[0], position_ids=numbers(args[0], kwargs))
        return args, kwargs

    def numbers(x: torch.Tensor, kwargs: dict[str, Any]) -> torch.Tensor:
        """Every token's position less the gone ones before it; new tokens have all before them."""
        first = mask_length(kwargs) - x.shape[1]
        ids = kwargs["position_ids"].expand(len(x), -1).clone()
        for at, slots in enumerate(gone):
            for new in range(x.shape[1]):
                ids[at, new] -= sum(slot < first + new for slot in slots.tolist())
        return ids

    def mask_length(kwargs: dict[str, Any]) -> int:
        return kwargs["attention_mask"].shape[-1]

    model.set_attn_implementation("eager")
    try:
        for layer in layers_of(model)[cut:]:
            handles.append(layer.register_forward_pre_hook(hide, with_kwargs=True))
        yield
    finally:
        for handle in handles:
            handle.remove()
        model.set_attn_implementation("sdpa")
