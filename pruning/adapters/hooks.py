"""Hooks on a Hugging Face model: on while a session lasts, off afterwards, always."""

from __future__ import annotations

import functools
import inspect
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from types import MethodType
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakSet

import torch

from pruning.adapters.errors import AdapterError
from pruning.adapters.layout import Span, lay_out
from pruning.adapters.session import Session
from pruning.adapters.walk import Plan, Walk
from pruning.adapters.zone import Zone, decode_mask, hidden_of, replaced
from pruning.runtime import Pruner
from pruning.transition import transition_variation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy as np
    from jaxtyping import Bool
    from torch import Tensor

    from pruning.adapters.family import Family
    from pruning.base import Method

BOOK = "pruned_by_leanvla"
"""Attribute of a cache: what lives in it."""

NOT_HERE = {
    "action": "a language model's prompt has no action rows",
    "pixels": "keys and values are not reused from one call to the next",
    "output": "the model would have to be asked once per token",
}
"""Needs that no adapter meets, and why."""

_pruned: WeakSet[Any] = WeakSet()


class Prompt(NamedTuple):
    """A prefill whose pictures may not be encoded yet.

    Attributes:
        masks: per kind of picture, where its tokens are.
        real: False at padding.
        causal: False when all of the prompt sees all of it.
    """

    masks: list[Bool[np.ndarray, "b s"]]
    real: Bool[Tensor, "b s"]
    causal: bool


@dataclass
class Book:
    """What lives in a cache.

    Attributes:
        length: tokens of the prefill, before any left.
        zones: from each cut on.
    """

    length: int
    zones: list[Zone]

    def zone_of(self, layer: int) -> Zone | None:
        """The zone that a layer is in; None before the first cut."""
        return next((zone for zone in reversed(self.zones) if zone.layer <= layer), None)


@dataclass
class Step:
    """One pass on a pruned cache."""

    book: Book
    new: int
    rows: int
    masks: dict[int, Tensor | None]


class HookSession(Session):
    """A session on a Hugging Face model; see `prune`."""

    def __init__(self, model: Any, family: Family, method: Method) -> None:
        super().__init__(method)
        self.family = family
        self.core = family.core(model)
        decoder = family.decoder(self.core)
        _check_needs(method, family)
        attention = decoder.config._attn_implementation
        if attention not in ("sdpa", "eager"):
            raise AdapterError(
                f"attention is {attention!r}: load the model with attn_implementation='sdpa'"
            )
        if "sliding_attention" in (getattr(decoder.config, "layer_types", None) or ()):
            raise AdapterError(
                f"{type(decoder).__name__} has sliding-window layers: their caches drop tokens by "
                "count, so that pruned ones cannot be told from old ones"
            )
        pruner = Pruner(method, len(decoder.layers), causal=True)
        deep = family.reads_deep(self.core)
        self.plan = Plan(family, decoder.layers, pruner, attention == "eager", deep)
        self.decoder = decoder
        self._stack: ExitStack | None = None
        self._prompt: Prompt | None = None
        self._encoded: dict[int, list[Span]] = {}
        self._walk: Walk | None = None
        self._step: Step | None = None

    def start(self) -> None:
        """Set the hooks."""
        if not self.method.prunes:
            return
        if self.core in _pruned:
            raise AdapterError("the model is being pruned already: leave that session first")
        self.plan.pruner.calls = 0
        self.counts.tokens_in = [0] * len(self.plan.layers)
        self.counts.tokens_out = [0] * len(self.plan.layers)
        with ExitStack() as stack:
            _pruned.add(self.core)
            stack.callback(_pruned.discard, self.core)
            self._set_hooks(stack)
            self._stack = stack.pop_all()

    def stop(self) -> None:
        """Take the hooks off."""
        self._forget()
        self._encoded = {}
        if self._stack is not None:
            self._stack.close()
            self._stack = None

    def _forget(self) -> None:
        self._prompt = self._walk = self._step = None

    def _set_hooks(self, stack: ExitStack) -> None:
        def on(handle: Any) -> None:
            stack.callback(handle.remove)

        for kind, (name, _) in enumerate(self.family.encoders):
            stack.enter_context(shadowed(self.core, name, partial(self._encoder, kind)))
        on(self.core.register_forward_pre_hook(self._begin, with_kwargs=True))
        on(self.core.register_forward_hook(self._end, always_call=True))
        on(self.decoder.register_forward_pre_hook(self._embedded, with_kwargs=True))
        plan = self.plan
        for index, layer in enumerate(plan.layers):
            on(layer.register_forward_pre_hook(self._before(index), with_kwargs=True))
            if plan.whole_behind(index):
                on(layer.register_forward_hook(self._after(index)))
        for index in plan.probes:
            attention = self.family.attention(plan.layers[index])
            for name, module in zip("qk", self.family.taps(attention), strict=True):
                on(module.register_forward_hook(self._tap(name)))
        if "transition" in self.method.needs:
            for layer in plan.layers[plan.pruner.cut - 1 : max(plan.cuts)]:
                for module in (self.family.attention(layer), layer.mlp):
                    on(module.register_forward_hook(self._trace, with_kwargs=True))

    def _begin(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """A forward of the core: a prefill, a step on a cache that a prefill pruned, or neither."""
        self._forget()
        inputs = kwargs
        if args:
            inputs = inspect.signature(module.forward).bind_partial(*args, **kwargs).arguments
        cache = inputs.get("past_key_values")
        if cache is not None and cache.get_seq_length():
            self._continue(cache, inputs)
            return
        ids, real = self._read(inputs)
        masks = [(ids == token).numpy() for token in self.family.token_ids(self.core)]
        if not any(mask.any() for mask in masks):
            self.counts.passes_without_vision += 1
            return
        for kind, output in enumerate((inputs.get("mm_encoder_outputs") or {}).values()):
            pictures = self.family.pictures(output)
            self._encoded.setdefault(kind, [Span(len(picture)) for picture in pictures])
        self._prompt = Prompt(masks, real, self.family.causal(inputs))

    def _continue(self, cache: Any, inputs: dict[str, Any]) -> None:
        if any(inputs.get(name) is not None for name in ("pixel_values", "pixel_values_videos")):
            raise AdapterError(
                "pictures on a cache that is filled already: prefill the whole prompt in one pass"
            )
        book = getattr(cache, BOOK, None)
        if book is None:
            return
        ids, mask = inputs.get("input_ids"), inputs.get("attention_mask")
        rows = (inputs["inputs_embeds"] if ids is None else ids).shape[1]
        new = cache.get_seq_length() - book.length + rows
        seen = mask.shape[-1] if mask is not None and mask.ndim == 2 else book.length + new
        if new < rows or seen != book.length + new:
            raise AdapterError(
                f"the cache holds {new - rows} tokens behind the prefill, the inputs speak of "
                f"{seen - book.length - rows}: a pruned cache cannot be cropped into its prefill"
            )
        self._step = Step(book, new, rows, {})
        self.counts.decode_steps += 1

    def _read(self, inputs: dict[str, Any]) -> tuple[Tensor, Bool[Tensor, "b s"]]:
        """Token numbers and what is no padding, on the host."""
        ids, mask = inputs.get("input_ids"), inputs.get("attention_mask")
        if ids is None:
            ids = self.family.ids_from(self.core, inputs["inputs_embeds"])
        if mask is None:
            return ids.cpu(), torch.ones(ids.shape, dtype=torch.bool)
        if not isinstance(mask, torch.Tensor) or mask.shape != ids.shape:
            raise AdapterError("attention_mask must be [batch, tokens], 0 at padding")
        return ids.cpu(), mask.bool().cpu()

    def _embedded(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """The decoder is about to run: pictures are encoded by now, and merged into the prompt."""
        prompt, self._prompt = self._prompt, None
        if prompt is None:
            return
        rows = lay_out(
            prompt.real.numpy(),
            [(mask, self._encoded.get(kind, [])) for kind, mask in enumerate(prompt.masks)],
        )
        self._encoded = {}
        self._walk = Walk(self.plan, rows, prompt.real, prompt.causal, self.counts.prefills)
        self._walk.embeds = kwargs["inputs_embeds"].detach()

    def _encoder(self, kind: int, original: Callable[..., Any]) -> Callable[..., Any]:
        """The core's own encoder, listened to."""

        @functools.wraps(original)
        def encode(*args: Any, **kwargs: Any) -> Any:
            output = original(*args, **kwargs)
            inputs = inspect.signature(original).bind_partial(*args, **kwargs).arguments
            self._encoded[kind] = self.family.spans(kind, inputs, self.family.pictures(output))
            return output

        return encode

    def _before(self, index: int) -> Callable[..., Any]:
        def hook(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            if self._walk is not None:
                start = time.perf_counter()
                x = self._walk.enter_layer(index, args[0], kwargs)
                if index in self.plan.cuts:
                    self.counts.selection_ms += (time.perf_counter() - start) * 1e3
                return (x, *args[1:]), kwargs
            if self._step is not None:
                return args, self._adapted(self._step, index, args[0], kwargs)
            return None

        return hook

    def _adapted(self, step: Step, index: int, x: Tensor, kwargs: dict[str, Any]) -> dict[str, Any]:
        """The inputs of a layer that has a pruned cache."""
        zone = step.book.zone_of(index)
        if zone is None:
            return kwargs
        held = kwargs["past_key_values"].layers[index].keys.shape[-2]
        if held != zone.size + step.new - step.rows or len(x) != len(zone.slots):
            raise AdapterError(
                f"layer {index} holds {held} tokens of {len(x)} samples, the prefill and what came "
                f"after make {zone.size + step.new - step.rows} of {len(zone.slots)}: the cache "
                "was cropped or changed in a way that pruning does not follow"
            )
        if zone.layer not in step.masks:
            given, additive = kwargs.get("attention_mask"), self.plan.additive
            step.masks[zone.layer] = decode_mask(
                given, zone.on(x.device), step.new, step.rows, x.dtype, additive
            )
        mask = step.masks[zone.layer]
        kwargs["attention_mask"] = None if mask is None else mask.to(x.device)
        return kwargs

    def _after(self, index: int) -> Callable[..., Any]:
        def hook(module: Any, args: tuple[Any, ...], output: Any) -> Any:
            if self._walk is None:
                return None
            whole = self._walk.leave_layer(index, hidden_of(output))
            return None if whole is None else replaced(output, whole)

        return hook

    def _tap(self, name: str) -> Callable[..., Any]:
        def hook(module: Any, args: tuple[Any, ...], output: Tensor) -> None:
            if self._walk is not None:
                self._walk.taps[name] = output.detach()

        return hook

    def _trace(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        """Add up what attention and MLP do to every token."""
        walk = self._walk
        if walk is None or walk.layer >= max(self.plan.cuts):
            return
        before = args[0] if args else kwargs["hidden_states"]
        zone = walk.zone
        real = walk.real if zone is None else zone.valid
        if real is not None:
            real = real.to(before.device)
        change = transition_variation(before, hidden_of(out), real)
        walk.transition = change if walk.transition is None else walk.transition + change

    def _end(self, module: Any, args: tuple[Any, ...], output: Any) -> None:
        """Whatever happened, the pass is over; what lives in the cache is written into it."""
        walk = self._walk
        self._forget()
        if walk is None or not walk.zones or output is None:  # none: the forward raised
            return
        counts = self.counts
        counts.prefills += 1
        counts.calls = self.plan.pruner.calls
        for into, of in ((counts.tokens_in, walk.tokens_in), (counts.tokens_out, walk.tokens_out)):
            into[:] = [total + tokens for total, tokens in zip(into, of, strict=False)]
        self.kept = walk.kept()
        if walk.cache is not None:
            _write_book(walk)


@contextmanager
def shadowed(owner: Any, name: str, wrap: Callable[[Any], Any]) -> Iterator[None]:
    """A method of one object wrapped for a while; its class is not touched."""
    own = vars(owner).get(name)
    setattr(owner, name, wrap(getattr(owner, name)))
    try:
        yield
    finally:
        if own is None:
            delattr(owner, name)
        else:
            setattr(owner, name, own)


def _write_book(walk: Walk) -> None:
    cache = walk.cache
    setattr(cache, BOOK, Book(walk.length, walk.zones))
    first = walk.zones[0]
    if first.layer == 0:
        # The first layer's length counts for the whole cache: positions go on from it.
        layer = cache.layers[0]
        layer.tokens_that_left = walk.length - first.size
        layer.get_seq_length = MethodType(_full_length, layer)


def _full_length(layer: Any, *args: Any) -> int:
    held = type(layer).get_seq_length(layer, *args)
    return held + layer.tokens_that_left if held else 0


def _check_needs(method: Method, family: Family) -> None:
    for need in sorted(method.needs):
        reason = NOT_HERE.get(need) or family.lacks(need)
        if reason:
            raise AdapterError(f"{method.name} needs {need!r}, and {reason}: choose another method")
    rule = method.history
    if rule is not None and rule.dense_warmup:
        raise AdapterError(
            f"{method.name} runs dense until actions have filled its history, and a language model "
            "decodes none: take warmup='semantic'"
        )
