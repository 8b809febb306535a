"""Sequences on their way through the decoder, from embeddings to actions.

Every query walks by itself; where walks are of one length, their layers run as one batch.

Tokens keep the rotary phase of their original position, also after others have left, and an
autoregressive decode goes on from the original numbering.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import torch

from policy.openvla.decoder import KeyValue, LayerOutput, Rope, rope_table
from policy.openvla.reuse import Reused, mask_of
from pruning.attention_rows import attention_rows
from pruning.transition import transition_variation

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from jaxtyping import Float, Int64
    from torch import Tensor

    from policy.openvla.model import OpenVLAModel
    from policy.openvla.sequence import Layout
    from policy.openvla.stopwatch import Stopwatch
    from pruning.types import Selection

    Kept = Int64[Tensor, "v k"] | tuple[Int64[Tensor, " k"], ...]

Decoded = tuple["Tensor | None", "Tensor | None"]


class Probe(NamedTuple):
    """Rotated queries and keys of a layer, for attention rows on the side."""

    q: Float[Tensor, "1 h s d"]
    k: Float[Tensor, "1 kv s d"]


class Walk:
    """The mutable part of one query; it lives as long as the query.

    Args:
        model: the network.
        layout: where things lie in the sequence.
        action_layer: layer whose action rows are remembered, None for none.
        trace_from: first layer whose changes to every token are added up, None for none.
    """

    def __init__(
        self,
        model: OpenVLAModel,
        layout: Layout,
        action_layer: int | None,
        trace_from: int | None = None,
    ) -> None:
        self.model, self.layout = model, layout
        self.layers = model.language_model.model.layers
        self.action_layer, self.trace_from = action_layer, trace_from
        self.kept: Kept | None = None
        self.alive = layout.visual
        self.layers_done, self.tokens_seen = 0, 0
        self.reused: Reused | None = None
        self.transition: Float[Tensor, "1 s"] | None = None
        self.at_cut: Probe | None = None
        self.caches: list[KeyValue] = []
        self._decoded: list[Float[Tensor, "1 h 1 d"]] = []  # queries of the action layer
        self._at_action: tuple[Probe, Kept | None, int] | None = None

    def enter(self, x: Float[Tensor, "1 s d"]) -> None:
        """Start with the embedded sequence."""
        self.x = x
        self.rope = rope_table(self.model.config.text, torch.arange(x.shape[1], device=x.device))

    def through(self, layers: Iterable[int], probe: int | None = None) -> None:
        """Run some layers; remember queries and keys of layer `probe` and of the action layer."""
        _run_layers([self], layers, probe)

    def took(self, index: int, out: LayerOutput, changes: Sequence[Tensor], probe: bool) -> None:
        """Layer `index` has run; its output becomes this walk's.

        Args:
            index: the layer.
            out: what it gave.
            changes: what its modules did to every token, when that is traced.
            probe: remember its queries and keys.
        """
        self.x, self.layers_done = out.x, index + 1
        self.tokens_seen += out.x.shape[1]
        for change in changes:
            self.transition = change if self.transition is None else self.transition + change
        if self.model.causal or self.reused is not None:
            self.caches.append(out.cache)
        if probe:
            self.at_cut = Probe(out.q, out.cache.k)
        if index == self.action_layer:
            self._at_action = Probe(out.q, out.cache.k), self.kept, self.alive

    def keep_only(self, selection: Selection) -> None:
        """Let the other visual tokens leave; all tokens that are not visual stay."""
        index = self.index_of(selection.kept)
        if selection.merge is None:
            self.x = self.x.index_select(1, index)
        else:
            self.x = _merged(self.x, selection.merge, index, self.alive)
        self.rope = self.rope.at(index)
        if self.transition is not None:
            self.transition = self.transition.index_select(1, index)
        self.kept, self.alive = self._original(selection.kept), selection.kept.numel()

    def reuse_others(self, kept: Int64[Tensor, "v k"], cut: int, before: KeyValue | None) -> None:
        """Compute only these visual tokens; the others attend as the query before left them.

        Args:
            kept: what is computed; everything where there is no query before.
            cut: the layer about to run.
            before: keys and values `[layers, kv, visual, d]` from `cut` on.
        """
        index = self.index_of(kept)
        busy = index[1 : 1 + kept.numel()] - 1
        idle = torch.ones(self.layout.visual, dtype=torch.bool, device=index.device)
        resting = idle.index_fill(0, busy, False).nonzero()[:, 0]
        masked = self.model.causal and resting.numel() > 0
        mask = mask_of(index, resting + 1, self.x.dtype) if masked else None
        self.reused = Reused(cut, resting, busy, before, mask)
        self.x, self.rope = self.x.index_select(1, index), self.rope.at(index)
        self.kept, self.alive = kept, kept.numel()

    def to_reuse(self) -> dict[str, Tensor]:
        """Keys and values for the next query, where a method reuses them."""
        if self.reused is None:
            return {}
        return self.reused.memory(
            self.caches[self.reused.cut - len(self.layers) :], self.layout.views
        )

    def index_of(self, kept: Int64[Tensor, "g k"]) -> Int64[Tensor, " s"]:
        """Positions, in the sequence as it is now, of what stays when these visual tokens do."""
        first, offset, rest = _frame(len(kept), self.alive, self.x.shape[1], self.x.device)
        return torch.cat([first, (kept + offset).reshape(-1), rest])

    @property
    def gone(self) -> int:
        """Visual tokens that left."""
        return self.layout.visual - self.alive

    def moved(self, rows: slice) -> slice:
        """Where rows behind the visual tokens are now."""
        return slice(rows.start - self.gone, rows.stop - self.gone)

    def survivors(self) -> Kept:
        """Indices of the visual tokens of every view that reached the last layer."""
        return self._all() if self.kept is None else self.kept

    def decode(self, clock: Stopwatch) -> Decoded:
        """Action tokens one by one, greedily, on the key-value cache."""
        return decode([self], clock)[0]

    def heard(self, caches: Sequence[KeyValue], queries: Sequence[Tensor]) -> None:
        """The caches after the decode, and the action layer's queries of every decoded token."""
        self.caches, self._decoded = list(caches), list(queries)

    def answer_with(self, kept: Sequence[Int64[Tensor, " k"]], cut: int) -> Float[Tensor, "a o"]:
        """What the action rows would say if these visual tokens lived from layer `cut` on.

        Nothing of the walk changes: this is for asking what a token is worth.
        """
        offset = torch.arange(len(kept)) * self.layout.tokens
        flat = torch.cat([row + start for row, start in zip(kept, offset, strict=True)])
        index = self.index_of(flat[None].to(self.x.device))
        x, rope = self.x.index_select(1, index), self.rope.at(index)
        for layer in self.layers[cut:]:
            x = layer(x, rope, causal=self.model.causal).x
        gone = self.layout.visual - flat.numel()
        rows = slice(self.layout.action_rows.start - gone, self.layout.action_rows.stop - gone)
        model, hidden = self.model, x[:, rows]
        if model.action_head is not None:
            return model.action_head(model.language_model.model.norm(hidden))[0]
        return model.language_model.logits(hidden)[0]

    def action_attention(self) -> tuple[Tensor, Tensor]:
        """Mean attention of the action rows, and the tokens that their layer saw.

        Both `[views, k]`; flat, over the views laid end to end, where they kept different numbers.
        """
        if self._at_action is None:
            raise RuntimeError("no action layer has run: run `through` over it")
        probe, seen, alive = self._at_action
        q, k = probe.q, probe.k
        if self.model.causal and self.action_layer is not None:
            # The last prompt row and every decoded one: the last rows before the last key.
            q, k = torch.cat([q[:, :, -1:], *self._decoded], 2), self.caches[self.action_layer].k
        else:
            rows, gone = self.layout.action_rows, self.layout.visual - alive
            q = q[:, :, rows.start - gone : rows.stop - gone]
        visual = slice(1, 1 + alive)
        mean = attention_rows(q, k, {"action": slice(None)}, visual, causal=self.model.causal)
        if seen is None:
            seen = self._all()
        if isinstance(seen, tuple):
            starts = range(0, self.layout.visual, self.layout.tokens)
            flat = torch.cat([row + start for row, start in zip(seen, starts, strict=True)])
            return mean["action"][0], flat
        return mean["action"].view(seen.shape), seen

    def _original(self, kept: Int64[Tensor, "g k"]) -> Kept:
        """Kept indices in the numbering of the views, before anything left."""
        views, tokens = self.layout.views, self.layout.tokens
        if len(kept) == views:
            return kept if self.kept is None else self.survivors().gather(1, kept)  # type: ignore[union-attr]
        flat = kept[0]
        return tuple(flat[flat // tokens == view] - view * tokens for view in range(views))

    def traces(self, index: int) -> bool:
        """Whether what layer `index` does to every token is added up."""
        return self.trace_from is not None and index >= self.trace_from

    def _all(self) -> Int64[Tensor, "v n"]:
        every = torch.arange(self.layout.tokens, device=self.x.device)
        return every.expand(self.layout.views, -1)


def advance(walks: Sequence[Walk], until: int, probe: int | None = None) -> None:
    """Run the layers before `until`; walks of the same length share every layer's products.

    A walk that reuses keys of the query before runs by itself.
    """
    groups: dict[tuple[int, ...], list[Walk]] = {}
    for number, walk in enumerate(walks):
        alone = -1 if walk.reused is None else number
        groups.setdefault((alone, walk.layers_done, walk.x.shape[1]), []).append(walk)
    for group in groups.values():
        _run_layers(group, range(group[0].layers_done, until), probe)


def parallel(walks: Sequence[Walk], clock: Stopwatch) -> list[Decoded]:
    """All actions of every walk at once: tokens `[chunk * dof]`, or values `[chunk, dof]`."""
    model = walks[0].model
    hidden = stack([walk.x[:, walk.moved(walk.layout.action_rows)] for walk in walks])
    if model.action_head is not None:
        values = model.action_head(model.language_model.model.norm(hidden))
        clock.mark("head")
        return [(None, row) for row in values]
    tokens = model.language_model.logits(hidden).argmax(-1)
    clock.mark("head")
    return [(row, None) for row in tokens]


def decode(walks: Sequence[Walk], clock: Stopwatch) -> list[Decoded]:
    """Action tokens of every walk one by one, greedily, on the key-value cache."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for number, walk in enumerate(walks):
        lengths = tuple(cache.k.shape[2] for cache in walk.caches)
        groups.setdefault(lengths, []).append(number)
    found: dict[int, Decoded] = {}
    for numbers in groups.values():
        tokens = _decode([walks[number] for number in numbers])
        found |= {number: (row, None) for number, row in zip(numbers, tokens, strict=True)}
    clock.mark("decode")
    return [found[number] for number in range(len(walks))]


def stack(rows: Sequence[Tensor]) -> Tensor:
    """Tensors of one row each as one batch; a lone one as it is."""
    return rows[0] if len(rows) == 1 else torch.cat(list(rows))


def _run_layers(group: Sequence[Walk], layers: Iterable[int], probe: int | None) -> None:
    """Run some layers on walks that look alike; only a lone one may reuse keys."""
    first = group[0]
    causal, reused = first.model.causal, first.reused
    x, rope = stack([walk.x for walk in group]), _rope_of(group)
    for index in layers:
        past, mask = (None, None) if reused is None else (reused.past(index), reused.mask)
        trace: list[tuple[Tensor, Tensor]] | None = [] if first.traces(index) else None
        out = first.layers[index](x, rope, causal=causal, past=past, mask=mask, trace=trace)
        x = out.x
        changes = [transition_variation(before, after) for before, after in trace or ()]
        for row, walk in enumerate(group):
            own = out if len(group) == 1 else _row_of(out, row)
            mine = [change[row : row + 1] for change in changes]
            walk.took(index, own, mine, index == probe)


def _row_of(out: LayerOutput, row: int) -> LayerOutput:
    at, cache = slice(row, row + 1), out.cache
    return LayerOutput(out.x[at], out.q[at], KeyValue(cache.k[at], cache.v[at]))


def _rope_of(group: Sequence[Walk]) -> Rope:
    """The rotary phases of a group; one table while nothing has left any sequence."""
    if len(group) == 1 or all(walk.kept is None for walk in group):
        return group[0].rope
    cos, sin = (torch.stack([walk.rope[part] for walk in group])[:, None] for part in (0, 1))
    return Rope(cos, sin)


def _decode(group: Sequence[Walk]) -> Int64[Tensor, "b a"]:
    model, first = group[0].model, group[0]
    language = model.language_model
    caches = [
        KeyValue(stack([cache.k for cache in layer]), stack([cache.v for cache in layer]))
        for layer in zip(*(walk.caches for walk in group), strict=True)
    ]
    token = language.logits(stack([walk.x[:, -1:] for walk in group]))[:, 0].argmax(-1)
    position = torch.tensor([walk.layout.prompt_end for walk in group], device=token.device)
    tokens, queries = [token], []
    for step in range(model.config.dof - 1):
        x = language.model.embed_tokens(token)[:, None]
        table = rope_table(model.config.text, position + step)
        rope = Rope(table.cos[:, None, None], table.sin[:, None, None])
        for index, layer in enumerate(first.layers):
            out = layer(x, rope, causal=True, past=caches[index])
            x, caches[index] = out.x, out.cache
            if index == first.action_layer:
                queries.append(out.q)
        token = language.logits(x)[:, 0].argmax(-1)
        tokens.append(token)
    for row, walk in enumerate(group):
        at = slice(row, row + 1)
        own = [KeyValue(cache.k[at], cache.v[at]) for cache in caches]
        walk.heard(own, [q[at] for q in queries])
    return torch.stack(tokens, 1)


@lru_cache(maxsize=64)
def _frame(
    rows: int, alive: int, length: int, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """Indices that no selection changes: BOS, where each row of views starts, what is behind."""
    with torch.inference_mode(False):
        every = torch.arange(length, device=device)
        starts = 1 + torch.arange(rows, device=device)[:, None] * (alive // rows)
        return every[:1], starts, every[1 + alive :]


def _merged(
    x: Float[Tensor, "1 s d"],
    merge: Float[Tensor, "g k n"],
    index: Int64[Tensor, " s"],
    alive: int,
) -> Float[Tensor, "1 s d"]:
    """The sequence with every kept visual token replaced by its mean."""
    visual = x[0, 1 : 1 + alive].unflatten(0, (len(merge), -1))
    mixed = (merge.to(x.dtype) @ visual).flatten(0, 1)
    short = x.index_select(1, index)
    return torch.cat([short[:, :1], mixed[None], short[:, 1 + len(mixed) :]], 1)
