"""One prefill on its way through the decoder, with visual tokens leaving at the cuts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from pruning.adapters.errors import AdapterError
from pruning.adapters.heads import Phases, by_head, rotate, scaled
from pruning.adapters.sight import PROBED, context, groups_of, look
from pruning.adapters.zone import (
    Zone,
    pad,
    prefill_mask,
    put_tokens,
    take_phases,
    take_positions,
    take_tokens,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from jaxtyping import Bool, Float, Int64
    from torch import Tensor

    from pruning.adapters.family import Family
    from pruning.adapters.layout import Row, View
    from pruning.adapters.recall import Recall
    from pruning.adapters.tower import Tower
    from pruning.runtime import Pruner
    from pruning.types import Selection


@dataclass
class Plan:
    """What does not change while a session lasts.

    Attributes:
        family: knows the model.
        layers: the decoder's.
        pruner: the method on this decoder.
        additive: masks are numbers to add (eager attention), not truth values.
        deep: layers behind whose outputs the model itself touches visual tokens.
        tower: the vision tower, where the method asks for it.
        rotary: makes phases of new position numbers; None where tokens keep their own.
        cuts: number of the stage by layer.
    """

    family: Family
    layers: Any
    pruner: Pruner
    additive: bool
    deep: int = 0
    tower: Tower | None = None
    rotary: Any = None
    cuts: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Number the cuts by layer."""
        self.cuts = {stage.cut: number for number, stage in enumerate(self.pruner.stages)}

    @property
    def probes(self) -> list[int]:
        """Layers whose queries and keys a cut reads."""
        needs = self.pruner.method.stage_needs
        return [cut - 1 for cut, number in self.cuts.items() if needs(number) & PROBED]

    def whole_behind(self, layer: int) -> bool:
        """True when the sequence has its full length again behind a layer."""
        return layer < self.deep or layer == len(self.layers) - 1


class Walk:
    """The mutable part of one prefill.

    Args:
        plan: of the session.
        rows: where text and pictures lie.
        real: False at padding, `[b, s]`, on the host.
        tower: per kind of picture, what the tower shows of every token.
        memory: what the first cut of the last prefill with this prompt remembered, by group of
            views; changed in place.
        recall: what earlier answers to this prompt looked at, for methods with history.
        seed: for methods that draw.
    """

    def __init__(
        self,
        plan: Plan,
        rows: list[Row],
        real: Bool[Tensor, "b s"],
        tower: list[dict[str, Tensor]],
        memory: dict[int, Mapping[str, Tensor]],
        recall: Recall | None,
        seed: int,
    ) -> None:
        self.plan, self.rows, self.real, self.tower = plan, rows, real, tower
        self.memory, self.recall, self.seed = memory, recall, seed
        self.dense = recall is not None and recall.dense
        self.length, self.causal = real.shape[1], True
        self.layer = 0
        self.zones: list[Zone] = []
        self.cache: Any = None
        self.embeds: Float[Tensor, "b s d"] | None = None
        self.transition: Float[Tensor, "b s"] | None = None
        self.taps: dict[str, Tensor] = {}
        self.phases: Phases | None = None
        self.tokens_in: list[int] = []
        self.tokens_out: list[int] = []
        self._x: Tensor | None = None
        self._whole: Tensor | None = None
        self._slots: list[Int64[Tensor, " l"]] = []

    @property
    def zone(self) -> Zone | None:
        """Where the walk is; None before the first cut."""
        return self.zones[-1] if self.zones else None

    def enter_layer(self, layer: int, x: Tensor, inputs: dict[str, Any]) -> Tensor:
        """Hidden states that a layer gets, and its other inputs for these in place.

        Args:
            layer: about to run.
            x: hidden states of the sequence as it is now.
            inputs: keyword arguments of the layer, changed where tokens have left.
        """
        self.layer, self.cache = layer, inputs.get("past_key_values")
        self.phases = Phases(*inputs["position_embeddings"])
        self.tokens_in.append(sum(row.length for row in self.rows))
        if self.zone is not None and layer > 0 and self.plan.whole_behind(layer - 1):
            self._whole, x = x, take_tokens(x, self.zone.on(x.device).slots)
        self._x = x
        if layer in self.plan.cuts and not self.dense:
            x = self._cut(x, inputs)
        self.tokens_out.append(sum(row.length for row in self.rows))
        if self.zone is not None:
            self._adapt(inputs, self.zone.on(x.device), x.dtype)
        return x

    def leave_layer(self, layer: int, x: Tensor) -> Tensor | None:
        """The sequence at its full length where the model expects that; None elsewhere.

        Tokens that left keep the hidden state that they left with.
        """
        if self.zone is None or not self.plan.whole_behind(layer) or self._whole is None:
            return None
        return put_tokens(self._whole.to(x.device), self.zone.on(x.device).slots, x)

    def living(self, row: int) -> Float[Tensor, "l d"]:
        """Hidden states of a sample's real tokens, where the walk is."""
        return self._now[row].index_select(0, self.where(row))

    def embeds_of(self, row: int) -> Float[Tensor, "l d"]:
        """Decoder-input embeddings of a sample's real tokens."""
        if self.embeds is None:
            raise AdapterError("the decoder was not called with embeddings")
        slots = self._slots_of(row, self.embeds.device)
        return self.embeds[row].index_select(0, slots).float().to(self._now.device)

    def shown(self, view: View, name: str) -> Float[Tensor, "n ..."]:
        """What the tower shows of the tokens of a view that live."""
        values = self.tower[view.kind].get(name)
        if values is None:
            raise AdapterError(
                f"{self.plan.pruner.method.name} reads the vision tower, and these pictures were "
                "encoded outside of the session: pass pixels, not features"
            )
        mine = values[view.offset : view.offset + view.tokens].float().to(self._now.device)
        return mine if view.kept is None else mine.index_select(0, view.kept)

    def where(self, row: int) -> Int64[Tensor, " l"]:
        """Where a sample's real tokens are in the sequence as it is now."""
        device = self._now.device
        if self.zone is None:
            return self._slots_of(row, device)
        return torch.arange(self.rows[row].length, device=device)

    def phases_of(self, row: int, attention: Any) -> Phases:
        """Rotary phases of a sample's real tokens."""
        if self.phases is None:
            raise AdapterError("the decoder's layers get no rotary phases")
        device = self.phases.cos.device
        slots = self._slots_of(row, device) if self.plan.rotary is None else self._first(row)
        return self.phases.of(row, slots.to(device), attention)

    def probed(
        self, row: int, layer: int
    ) -> tuple[Float[Tensor, "1 h l e"], Float[Tensor, "1 kv l e"]]:
        """Rotated queries and keys of the layer that was heard last, of a sample's real tokens."""
        attention = self.plan.family.attention(self.plan.layers[layer])
        phases, where = self.phases_of(row, attention), self.where(row)
        q, k = (
            rotate(by_head(self.taps[name][row : row + 1], attention)[0][:, where], phases)[None]
            for name in ("q", "k")
        )
        return scaled(q, attention), k

    def kept(self) -> list[list[Int64[Tensor, " k"]]]:
        """Survivors by sample and view."""
        return [
            [
                torch.arange(view.tokens) if view.kept is None else view.kept.cpu()
                for view in row.views
            ]
            for row in self.rows
        ]

    @property
    def _now(self) -> Tensor:
        if self._x is None:
            raise AdapterError("no decoder layer has been reached")
        return self._x

    def _slots_of(self, row: int, device: torch.device) -> Int64[Tensor, " l"]:
        if not self._slots:
            self._slots = [torch.from_numpy(row.slots).to(device) for row in self.rows]
        return self._slots[row].to(device)

    def _first(self, row: int) -> Int64[Tensor, " l"]:
        """As many slots as a sample has living tokens, from its first one on."""
        return torch.from_numpy(self.rows[row].slots[: self.rows[row].length])

    def _cut(self, x: Tensor, inputs: dict[str, Any]) -> Tensor:
        """Let tokens leave."""
        number = self.plan.cuts[self.layer]
        if self._whole is None or self.zone is None:
            self._whole = x
            self.causal = not (self.plan.family.prefix and self._sees_all(inputs))
        else:
            self._whole = put_tokens(self._whole.to(x.device), self.zone.on(x.device).slots, x)
        return self._apply(x, self._choose(number))

    def _sees_all(self, inputs: dict[str, Any]) -> bool:
        """Whether the prompt sees all of itself, by the mask that the model made.

        Raises:
            AdapterError: when a part of it is causal, as in training on answers.
        """
        mask = inputs.get("attention_mask")
        if mask is None:
            return False
        seen = []
        for at, row in enumerate(self.rows):
            keys = [row.slots[min(1, len(row.slots) - 1)], row.slots[-1]]
            values = mask[at % len(mask), 0, row.slots[0], keys]
            seen.append((values if mask.dtype == torch.bool else values == 0).tolist())
        if all(last for _, last in seen):
            return True
        if not any(second for second, _ in seen):
            return False
        raise AdapterError(
            "a part of the prompt is a causal suffix (an answer to train on): prune prompts alone"
        )

    def _choose(self, number: int) -> list[tuple[list[View], Selection]]:
        pruner = self.plan.pruner
        stage, needs = pruner.stages[number], pruner.method.stage_needs(number)
        seen = {at: look(self, at, needs) for at, row in enumerate(self.rows) if row.views}
        chosen = []
        for at, views in enumerate(groups_of(self.rows, alone=pruner.method.adaptive)):
            memory = {} if number else self.memory.get(at, {})
            ctx = context(self, views, number, stage, seen, seed=self.seed, memory=memory)
            selection = pruner.select(ctx)
            if not number:
                self.memory[at] = selection.memory
            chosen.append((views, selection))
        return chosen

    def _apply(self, x: Tensor, chosen: Sequence[tuple[list[View], Selection]]) -> Tensor:
        kept, merged = {}, {}
        for views, selection in chosen:
            for view, index, mixed in split(views, selection, self, x):
                kept[id(view)] = index
                if mixed is not None:
                    merged[id(view)] = mixed
        indices = [self._index(row, kept, x.device) for row in self.rows]
        where = [self.where(at) for at in range(len(self.rows))]
        index, valid = pad([w[i] for w, i in zip(where, indices, strict=True)])
        for view in (view for row in self.rows for view in row.views):
            if id(view) in kept:
                new = kept[id(view)]
                view.kept = new if view.kept is None else view.kept[new]
                view.living = len(new)
        slots = index if self.zone is None else self.zone.on(x.device).slots.gather(1, index)
        self._slots = [row[: self.rows[at].length] for at, row in enumerate(slots)]
        places = None
        if self.plan.rotary is not None:
            places = pad([self._first(at).to(x.device) for at in range(len(self.rows))])[0]
        self.zones.append(Zone(self.layer, slots, valid, places))
        if self.transition is not None:
            self.transition = self.transition.gather(1, index)
        x = take_tokens(x, index)
        return self._mixed(x, merged) if merged else x

    def _index(self, row: Row, kept: dict[int, Tensor], device: torch.device) -> Tensor:
        """What stays of a sample, among its real tokens as they are now."""
        pieces = []
        for start, run in zip(row.starts(), row.runs, strict=True):
            if isinstance(run, int):
                pieces.append(torch.arange(start, start + run, device=device))
            elif id(run) in kept:
                pieces.append(kept[id(run)] + start)
            else:
                pieces.append(torch.arange(start, start + run.living, device=device))
        return torch.cat(pieces)

    def _mixed(self, x: Tensor, merged: dict[int, Tensor]) -> Tensor:
        """Kept tokens replaced by the means that took in the others."""
        x = x.clone()
        for at, row in enumerate(self.rows):
            for view in row.views:
                if id(view) in merged:
                    start = row.start_of(view)
                    x[at, start : start + view.living] = merged[id(view)].to(x.dtype)
        return x

    def _adapt(self, inputs: dict[str, Any], zone: Zone, dtype: torch.dtype) -> None:
        """Masks, positions and phases for the living."""
        given = inputs.get("attention_mask")
        inputs["attention_mask"] = prefill_mask(given, zone, dtype, self.plan.additive)
        phases = inputs["position_embeddings"]
        inputs["position_embeddings"] = tuple(take_phases(part, zone.numbered) for part in phases)
        if inputs.get("position_ids") is not None:
            inputs["position_ids"] = take_positions(inputs["position_ids"], zone.numbered)


def split(
    views: Sequence[View], selection: Selection, walk: Walk, x: Tensor
) -> list[tuple[View, Int64[Tensor, " k"], Float[Tensor, "k d"] | None]]:
    """A selection by view: what stays, and what each kept token becomes where tokens are merged."""
    states = None
    if selection.merge is not None:
        states = [walk.living(view.row) for view in views]
        starts = [walk.rows[view.row].start_of(view) for view in views]
        states = [s[at : at + v.living] for s, at, v in zip(states, starts, views, strict=True)]
    found = []
    for group, kept in enumerate(selection.kept):
        mine = views[group * selection.views : (group + 1) * selection.views]
        mixed = None
        if states is not None and selection.merge is not None:
            tokens = torch.cat(states[group * selection.views : (group + 1) * selection.views])
            mixed = selection.merge[group].to(tokens.dtype) @ tokens
        found += _by_view(mine, kept, mixed)
    return found


def _by_view(
    views: Sequence[View], kept: Int64[Tensor, " k"], mixed: Float[Tensor, "k d"] | None
) -> list[tuple[View, Tensor, Tensor | None]]:
    if len(views) == 1:
        return [(views[0], kept, mixed)]
    n, found = views[0].living, []
    for at, view in enumerate(views):  # an uneven split: its sizes are read from the device
        mine = kept // n == at
        found.append((view, kept[mine] - at * n, None if mixed is None else mixed[mine]))
    return found
