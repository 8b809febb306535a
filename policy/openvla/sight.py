"""What a method may look at, computed beside the walk and only when it was declared.

Rows of attention are recomputed from the queries and keys of one layer, for these rows only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch

from policy.openvla.decoder import rotate
from policy.openvla.walk import stack
from pruning.attention_rows import attention_rows
from pruning.base import ROW_KINDS
from pruning.qk import mean_product, row_attention
from pruning.types import Heads, PruneContext

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from jaxtyping import Bool, Float, Float32
    from torch import Tensor

    from policy.openvla.decoder import DecoderLayer
    from policy.openvla.model import OpenVLAModel
    from policy.openvla.vision import TowerProbe
    from policy.openvla.walk import Probe, Walk

TOWER = frozenset({"tower_attention", "tower_keys"})


class Seen(NamedTuple):
    """What the vision side gives for one query.

    Attributes:
        tower: its output before the projector.
        visual: tokens in the decoder's space.
        probes: queries and keys of the towers, when some method needs them.
    """

    tower: Float[Tensor, "v n w"]
    visual: Float[Tensor, "v n d"]
    probes: list[TowerProbe]


def look(
    model: OpenVLAModel,
    pixels: Sequence[Float32[Tensor, "1 c h w"]],
    texts: Sequence[Float[Tensor, "1 t d"]],
    needs: Sequence[Collection[str]],
) -> list[Sight]:
    """The eyes on some queries, whose views are encoded as one batch."""
    probes: list[TowerProbe] = []
    watch = probes if any(TOWER & set(need) for need in needs) else None
    language = stack([text.mean(1) for text in texts]) if model.film else None
    towers = model.vision_backbone(stack(pixels), language, watch)
    visual, views = model.projector(towers), towers.shape[1]
    sights = []
    for row, (own, text, need) in enumerate(zip(pixels, texts, needs, strict=True)):
        at = slice(row * views, (row + 1) * views)
        mine = [probe._replace(q=probe.q[at], k=probe.k[at]) for probe in probes]
        sights.append(Sight(model, own, text, need, Seen(towers[row], visual[row], mine)))
    return sights


class Sight:
    """The eyes of a method on one query.

    Args:
        model: the network.
        pixels: normalised frames.
        text: embeddings of BOS, prompt and, when decoding in parallel, the stop token.
        needs: what the method declared, over all its cuts.
        seen: what the vision side gave.
    """

    def __init__(
        self,
        model: OpenVLAModel,
        pixels: Float32[Tensor, "1 c h w"],
        text: Float[Tensor, "1 t d"],
        needs: Collection[str],
        seen: Seen,
    ) -> None:
        self.model, self.pixels, self.needs = model, pixels, needs
        self.prompt = text[0, 1:] if model.causal else text[0, 1:-1]
        self.tower, self.visual, self.probes = seen

    def context(
        self, walk: Walk, cut: int, stride: int, needs: Collection[str], **given: Any
    ) -> PruneContext:
        """The context of a cut, for the visual tokens that live there.

        Args:
            walk: at the cut.
            cut: full layers so far.
            stride: rows between two that are averaged; see `attention_rows`.
            needs: what is read at this cut.
            **given: further fields; the budget must be among them.
        """
        attention = self._attention(walk, stride, needs)
        views = walk.layout.views
        fields: dict[str, Any] = {"views": views, "features": self.living(walk, self.visual)}
        if "text_features" in needs:
            fields["text_features"] = self.prompt.float().expand(views, -1, -1)
        if "tower_features" in needs:
            fields["tower_features"] = self.living(walk, self.tower)
        if "tower_keys" in needs:
            fields["tower_keys"] = self.living(walk, self._tower_keys())
        if "pixels" in needs:
            fields["pixels"] = self.living(walk, patches(self.model, self.pixels))
        if "project" in needs:
            dtype = self.tower.dtype
            fields["project"] = lambda tokens: self.model.projector(tokens.to(dtype)).float()
        if "output" in needs:
            fields["output"] = lambda kept: walk.answer_with(kept, cut)
        return PruneContext(attention=attention, **fields, **_at_cut(walk, needs), **given)

    def _attention(
        self, walk: Walk, stride: int, needs: Collection[str]
    ) -> dict[str, Float[Tensor, "v n"]]:
        """Every declared kind of attention, by kind."""
        attention = _row_means(walk, ROW_KINDS & set(needs), stride)
        if "text_next" in needs or "text_qk" in needs:
            attention |= _next_layer(walk, needs)
        if "tower_attention" in needs:
            tower = {kind: self.living(walk, value) for kind, value in self._tower_rows().items()}
            attention |= tower
        return attention

    def _tower_rows(self) -> dict[str, Float[Tensor, "v n"]]:
        """Attention of patch rows, mean over towers; of class tokens, over towers with one."""
        rows: dict[str, list[Tensor]] = {"tower_mean": [], "tower_cls": []}
        for probe in self.probes:
            patch = slice(probe.prefix, None)
            kinds = {"tower_mean": patch}
            if probe.class_token:
                kinds["tower_cls"] = slice(0, 1)
            for kind, mean in attention_rows(probe.q, probe.k, kinds, patch, causal=False).items():
                rows[kind].append(mean)
        return {kind: torch.stack(means).mean(0) for kind, means in rows.items() if means}

    def _tower_keys(self) -> Float[Tensor, "v n e"]:
        keys = [probe.k[:, :, probe.prefix :].float().mean(1) for probe in self.probes]
        return torch.cat(keys, -1)

    def living(self, walk: Walk, values: Float[Tensor, "v n ..."]) -> Float[Tensor, "v k ..."]:
        """Those of the visual tokens that live."""
        values, kept = values.to(walk.x.device, torch.float32), walk.kept
        if kept is None:
            return values
        shape = (*kept.shape, *[1] * (values.ndim - 2))  # type: ignore[union-attr]
        index = kept.view(shape).expand(*kept.shape, *values.shape[2:])  # type: ignore[union-attr]
        return values.gather(1, index)


def _at_cut(walk: Walk, needs: Collection[str]) -> dict[str, Any]:
    """Hidden states, transitions, and what is no mean over rows."""
    views, fields = walk.layout.views, {}
    text, visual = _spans(walk)
    if "hidden" in needs:
        fields["hidden"] = walk.x[0, visual].float().unflatten(0, (views, -1))
    if "text_hidden" in needs:
        fields["text_hidden"] = walk.x[0, text].float().expand(views, -1, -1)
    if "transition" in needs and walk.transition is not None:
        fields["transition"] = walk.transition[0, visual].view(views, -1)
    if not {"text_rows", "text_mass", "heads"} & set(needs):
        return fields
    q, k = _probed(walk)
    if "text_rows" in needs:
        rows = row_attention(q[:, :, text], k, visual, _later(walk, text))
        fields["text_rows"] = rows[0].unflatten(1, (views, -1)).transpose(0, 1)
    if "text_mass" in needs:
        looked = row_attention(q[:, :, visual], k, text, _later(walk, visual))
        fields["text_mass"] = looked[0].sum(-1).view(views, -1).mean(-1)
    if "heads" in needs:
        keys = k[0, :, visual].unflatten(1, (views, -1)).transpose(0, 1)
        fields["heads"] = Heads(q[0, :, text].expand(views, -1, -1, -1), keys)
    return fields


def _row_means(walk: Walk, kinds: Collection[str], stride: int) -> dict[str, Tensor]:
    """Mean attention `[views, n]` that visual tokens get from rows of each kind.

    `action` rows are the ones whose outputs are the actions: one before each placeholder. (The
    released OFT code averages over the placeholders themselves, the same rows but one.)
    """
    if not kinds:
        return {}
    q, k = _probed(walk)
    layout, (text, visual) = walk.layout, _spans(walk)
    spans = {
        "last": slice(text.stop - 1, text.stop),
        "prefill": slice(0, text.stop),
        "text": text,
        "action": walk.moved(layout.action_rows),
    }
    wanted = {kind: spans[kind] for kind in kinds}
    rows = attention_rows(q, k, wanted, visual, causal=walk.model.causal, row_stride=stride)
    return {kind: row.view(layout.views, -1) for kind, row in rows.items()}


def _next_layer(walk: Walk, needs: Collection[str]) -> dict[str, Tensor]:
    """Text rows of the layer about to run, with and without rotary phases and softmax."""
    index = walk.layers_done
    layer, (text, visual) = cast("DecoderLayer", walk.layers[index]), _spans(walk)
    q, k = layer.self_attn.heads_of(layer.input_layernorm(walk.x))
    views, found = walk.layout.views, {}
    if "text_qk" in needs:
        found["text_qk"] = mean_product(q[:, :, text], k[:, :, visual]).view(views, -1)
    if "text_next" in needs:
        turned, causal = rotate(q, walk.rope), walk.model.causal
        rows = attention_rows(turned, rotate(k, walk.rope), {"text": text}, visual, causal=causal)
        found["text_next"] = rows["text"].view(views, -1)
    return found


def patches(model: OpenVLAModel, pixels: Float32[Tensor, "1 c h w"]) -> Float32[Tensor, "v n p"]:
    """Every patch's pixels in 0..1, as the first tower cuts them."""
    tower, per_view = model.config.towers[0], 3 * len(model.config.towers)
    frames = pixels[0].unflatten(0, (-1, per_view))[:, :3].float()
    mean, std = (frames.new_tensor(c).view(1, 3, 1, 1) for c in (tower.mean, tower.std))
    side, grid = tower.patch_size, tower.grid
    frames = (frames * std + mean)[..., : side * grid, : side * grid]
    tiles = frames.unflatten(3, (grid, side)).unflatten(2, (grid, side))
    return tiles.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)


def _spans(walk: Walk) -> tuple[slice, slice]:
    """Text and visual positions in the sequence as it is now."""
    layout = walk.layout
    return walk.moved(slice(layout.text_start, layout.prompt_end)), slice(1, 1 + walk.alive)


def _later(walk: Walk, rows: slice) -> Bool[Tensor, "r s"] | None:
    if not walk.model.causal:
        return None
    at = torch.arange(walk.x.shape[1], device=walk.x.device)
    return at > at[rows, None]


def _probed(walk: Walk) -> Probe:
    if walk.at_cut is None:
        raise RuntimeError("no queries and keys remembered: run `through` over the probed layer")
    return walk.at_cut
