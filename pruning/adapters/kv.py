"""Keys and values chosen anew by every query: for long contexts, where nothing may be lost.

    with select_kv(model, KVSelect(sinks=4, most=0.25, newest=32)) as session:
        model.generate(**inputs)
    session.counts.attended_share

TokenSelect (arXiv 2411.02886) on a Hugging Face decoder, through the attention interface that
`transformers` has for others to register in; no package is patched. A prefill runs in chunks of
`newest` rows, counted from its end, whose mean query elects; every decoded token elects for itself.
Every slot stays in the cache.

Deviation: keys keep the positions at which they were rotated, where the release numbers the elected
ones anew.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch
from torch.nn.functional import scaled_dot_product_attention

from pruning.adapters.api import family_of
from pruning.adapters.errors import AdapterError
from pruning.base import MethodError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from jaxtyping import Float
    from torch import Tensor
    from typing_extensions import Self

    from pruning.kv_select import Election, KVSelect

NAME = "leanvla_kv_select"
"""Of the attention, as `transformers` knows it."""

_sessions: WeakKeyDictionary[Any, KVSession] = WeakKeyDictionary()


@dataclass
class KVCounts:
    """What happened since the session was entered.

    Attributes:
        queries: chunks of a prefill and decoded tokens, over all layers.
        elections: those of them that had more slots than they may attend to.
        reused: elections of an earlier query that stood.
        attended: slots attended to, summed over queries.
        slots: slots that there were.
        longest: slots of the longest context.
        election_ms: time of votes and gathers, milliseconds.
    """

    queries: int = 0
    elections: int = 0
    reused: int = 0
    attended: int = 0
    slots: int = 0
    longest: int = 0
    election_ms: float = 0.0

    @property
    def attended_share(self) -> float:
        """Share of the slots that a query attended to, on average."""
        return self.attended / max(1, self.slots)


def select_kv(model: Any, select: KVSelect) -> KVSession:
    """Let every query of the decoder attend to the slots that it elects, while a context lasts.

    Args:
        model: a Hugging Face vision-language model of a supported family with causal attention.
        select: which slots.

    Raises:
        AdapterError: for an unsupported model, or one whose prompt sees all of itself.
        MethodError: when a query would not attend to itself.
    """
    if select.newest < 1:
        raise MethodError(f"newest is {select.newest}: a query attends to itself, give 1 or more")
    family = family_of(model)
    if family.prefix:
        raise AdapterError(
            f"{type(model).__name__}: its prompt sees all of itself, so no later row can choose "
            "among earlier ones: take a model with causal attention"
        )
    decoder = family.decoder(family.core(model))
    return KVSession(decoder, [family.attention(layer) for layer in decoder.layers], select)


class KVSession:
    """The stretch of time in which slots are elected.

    Attributes:
        select: which slots.
        counts: what happened so far.
    """

    def __init__(self, decoder: Any, attentions: list[Any], select: KVSelect) -> None:
        self.select, self.counts = select, KVCounts()
        self._config, self._attentions = decoder.config, attentions
        self._last: dict[int, Election | None] = {}
        self._before: str | None = None

    def __enter__(self) -> Self:
        """Start; counters start at zero.

        Raises:
            AdapterError: when slots of this model are elected already.
        """
        if any(attention in _sessions for attention in self._attentions):
            raise AdapterError("slots of this model are elected already: leave that context first")
        _register()
        self.counts, self._last = KVCounts(), {}
        self._before = self._config._attn_implementation
        self._config._attn_implementation = NAME
        for attention in self._attentions:
            _sessions[attention] = self
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop; the model is as it was.

        Raises:
            MethodError: when no layer's attention came by, or every query attended to all slots, so
                that a dense result cannot pass for another one.
        """
        self._config._attn_implementation = self._before
        for attention in self._attentions:
            _sessions.pop(attention, None)
        if kind is not None:
            return
        if not self.counts.queries:
            raise MethodError("no query came by: run the model inside the context")
        if not self.counts.elections:
            raise MethodError(_all_fits(self.select, self.counts.longest))

    def attend(
        self,
        module: Any,
        query: Float[Tensor, "b h r e"],
        key: Float[Tensor, "b kv t e"],
        value: Float[Tensor, "b kv t e"],
        mask: Float[Tensor, "b 1 r t"],
        scale: float,
    ) -> Float[Tensor, "b r h e"]:
        """One layer's attention, chunk by chunk."""
        rows, slots = query.shape[2], key.shape[2]
        mask = mask[..., :slots]
        _refuse_hidden(mask)
        if rows == slots:  # a new prompt
            self._last.pop(id(module), None)
        parts = []
        for start, end in _chunks(rows, self.select.newest):
            seen = slots - rows + end
            chunk, there = query[:, :, start:end], (key[:, :, :seen], value[:, :, :seen])
            parts.append(self._chunk(id(module), chunk, there, mask[:, :, start:end, :seen], scale))
        return torch.cat(parts, 2).transpose(1, 2).contiguous()

    def _chunk(
        self,
        layer: int,
        query: Tensor,
        there: tuple[Tensor, Tensor],
        mask: Tensor,
        scale: float,
    ) -> Tensor:
        key, value = there
        begun, last = time.perf_counter(), self._last.get(layer)
        election = self.select.elect(query.mean(2), key, last)
        counts, slots = self.counts, key.shape[2]
        counts.queries += 1
        counts.slots += slots
        counts.longest = max(counts.longest, slots)
        if election is not None:
            counts.elections += 1
            counts.reused += last is not None and election.query is last.query
            key, value, mask = _taken(election.slots, key, value, mask)
            self._last[layer] = election
        counts.attended += key.shape[2]
        counts.election_ms += (time.perf_counter() - begun) * 1e3
        heads = query.shape[1] // key.shape[1]
        key, value = (x.repeat_interleave(heads, 1) for x in (key, value))
        return scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scale)


def _all_fits(select: KVSelect, slots: int) -> str:
    return (
        f"nothing was elected: {select.sinks} first slots, {select.count(slots)} elected and "
        f"{select.newest} newest ones are no fewer than the {slots} of the longest context, so "
        "every query saw all of it: give a longer prompt, or smaller sizes, e.g. "
        "KVSelect(sinks=4, most=0.25, newest=32), kv_select:sinks=4:newest=32"
    )


def _attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor,
    scaling: float | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """What `transformers` calls in place of its own attention."""
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    return _sessions[module].attend(module, query, key, value, attention_mask, scale), None


def _register() -> None:
    """Make the name known; masks are those of eager attention, numbers to add, never left out."""
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, eager_mask
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    ALL_ATTENTION_FUNCTIONS.register(NAME, _attention)
    ALL_MASK_ATTENTION_FUNCTIONS.register(NAME, eager_mask)


def _chunks(rows: int, size: int) -> Iterator[tuple[int, int]]:
    """Stretches of `size` rows, counted from the end, so that the last one is whole."""
    size = max(1, size)
    start, end = 0, rows % size or min(size, rows)
    while start < rows:
        yield start, end
        start, end = end, end + size


def _refuse_hidden(mask: Tensor) -> None:
    """Refuse padding and windows: sinks and votes would fall on slots that nobody may see.

    Raises:
        AdapterError: when the newest row may not see every slot.
    """
    newest = mask[:, :, -1]
    hidden = ~newest if newest.dtype == torch.bool else newest < 0
    if bool(hidden.any()):
        raise AdapterError(
            "the newest row may not see every slot (padding, or a sliding window): ask one prompt "
            "at a time, of a model with full attention"
        )


def _taken(slots: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
    """Keys, values and mask columns of the elected slots."""
    own = slots[:, None, :, None].expand(-1, key.shape[1], -1, key.shape[-1])
    columns = slots[:, None, None].expand(-1, -1, mask.shape[2], -1)
    mask = mask.expand(len(slots), -1, -1, -1).gather(3, columns)
    return key.gather(2, own), value.gather(2, own), mask
