"""Hooks on a Hugging Face model: on while a session lasts, off afterwards, always."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, NamedTuple
from weakref import WeakSet

import numpy as np
import torch

from pruning.adapters.cache import Step, is_filled, step_on, write_book
from pruning.adapters.errors import AdapterError
from pruning.adapters.heads import Phases
from pruning.adapters.layout import Encoded, Span, lay_out
from pruning.adapters.recall import Recall
from pruning.adapters.session import Session
from pruning.adapters.timer import Timer
from pruning.adapters.tower import NEEDS as TOWER_NEEDS
from pruning.adapters.walk import Plan, Walk
from pruning.adapters.zone import hidden_of, replaced
from pruning.runtime import Pruner
from pruning.transition import transition_variation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from jaxtyping import Bool, Int64
    from torch import Tensor

    from pruning.adapters.family import Family
    from pruning.base import Method

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
        ids: token numbers.
        masks: per kind of picture, where its tokens are.
        real: False at padding.
    """

    ids: Int64[Tensor, "b s"]
    masks: list[Bool[np.ndarray, "b s"]]
    real: Bool[Tensor, "b s"]


class HookSession(Session):
    """A session on a Hugging Face model; see `prune`."""

    def __init__(
        self,
        model: Any,
        family: Family,
        method: Method,
        seed: int = 0,
        positions: Literal["keep", "repack"] = "keep",
    ) -> None:
        super().__init__(method)
        self.family, self.seed = family, _checked(seed)
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
        tower = family.tower(self.core) if method.needs & TOWER_NEEDS else None
        rotary = decoder.rotary_emb if _repacks(positions, family, decoder) else None
        self.plan = Plan(family, decoder.layers, pruner, attention == "eager", deep, tower, rotary)
        self.decoder = decoder
        self._stack: ExitStack | None = None
        self._timer = Timer()
        self._prompt: Prompt | None = None
        self._encoded: dict[int, Encoded] = {}
        self._encoding = False
        self._asked: Tensor | None = None
        self._memory: dict[int, Mapping[str, Tensor]] = {}
        self._recall: Recall | None = None
        self._walk: Walk | None = None
        self._step: Step | None = None

    def start(self) -> None:
        """Set the hooks."""
        if not self.method.prunes:
            return
        if self.core in _pruned:
            raise AdapterError("the model is being pruned already: leave that session first")
        self.plan.pruner.calls, self._timer = 0, Timer()
        self._recall = self._remembering()
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
        self._encoded, self._memory, self._asked, self._recall = {}, {}, None, None
        if self._stack is not None:
            self._stack.close()
            self._stack = None
            self.counts.selection_ms = self._timer.total_ms()

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
        if self._recall is not None:
            on(self._recall.attention.register_forward_hook(self._answers, with_kwargs=True))
        for index in self._heard():
            attention = self.family.attention(plan.layers[index])
            for name, module in zip("qk", self.family.taps(attention), strict=True):
                on(module.register_forward_hook(self._tap(name)))
        if plan.tower is not None:
            plan.tower.listen(on)
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
        if is_filled(cache):
            self._step = step_on(cache, inputs)
            self.counts.decode_steps += self._step is not None and bool(self._step.book.zones)
            return
        ids, real = self._read(inputs)
        masks = [(ids == token).numpy() for token in self.family.token_ids(self.core)]
        if not any(mask.any() for mask in masks):
            self.counts.passes_without_vision += 1
            return
        self._take_features(inputs.get("mm_encoder_outputs"))
        self._prompt = Prompt(ids, masks, real)

    def _take_features(self, outputs: Any) -> None:
        """Features that came with the prompt and were not encoded in this session."""
        if not isinstance(outputs, Mapping):
            return
        for kind, (name, _) in enumerate(self.family.encoders):
            output = outputs.get(name.split("_")[1])
            if output is not None and kind not in self._encoded:
                spans = [Span(len(picture)) for picture in self.family.pictures(output)]
                self._encoded[kind] = Encoded(spans, {})

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
        nothing = Encoded([], {})
        encoded = [self._encoded.get(kind, nothing) for kind in range(len(prompt.masks))]
        self._encoded = {}
        kinds = zip(prompt.masks, (one.spans for one in encoded), strict=True)
        rows = lay_out(prompt.real.numpy(), list(kinds))
        same = self._asked is not None and prompt.ids.equal(self._asked)
        if not same:
            self._asked, self._memory = prompt.ids, {}
        if self._recall is not None:
            self._recall.turn(same)
        shown, seed = [one.tower for one in encoded], seed_of(self.seed, self.counts.prefills)
        self._walk = Walk(self.plan, rows, prompt.real, shown, self._memory, self._recall, seed)
        self.counts.dense_warmups += self._walk.dense
        self._walk.embeds = kwargs["inputs_embeds"].detach()

    def _encoder(self, kind: int, original: Callable[..., Any]) -> Callable[..., Any]:
        """The core's own encoder, listened to."""

        @functools.wraps(original)
        def encode(*args: Any, **kwargs: Any) -> Any:
            if self._encoding:  # one encoder may call another
                return original(*args, **kwargs)
            self._encoding = True
            try:
                output = original(*args, **kwargs)
            finally:
                self._encoding = False
            bound = inspect.signature(original).bind_partial(*args, **kwargs)
            inputs = {**bound.arguments, "kind": kind}
            spans = self.family.spans(self.core, kind, inputs, self.family.pictures(output))
            seen = {} if self.plan.tower is None else self.plan.tower.read(inputs)
            self._encoded[kind] = Encoded(spans, seen)
            return output

        return encode

    def _before(self, index: int) -> Callable[..., Any]:
        def hook(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            if self._walk is not None:
                cuts = index in self.plan.cuts
                with self._timer.on(args[0].device) if cuts else nullcontext():
                    x = self._walk.enter_layer(index, args[0], kwargs)
                return (x, *args[1:]), kwargs
            if self._step is not None:
                rotary = getattr(self.decoder, "rotary_emb", None)
                self._step.adapt(index, args[0], kwargs, self.plan.additive, rotary)
                return args, kwargs
            return None

        return hook

    def _after(self, index: int) -> Callable[..., Any]:
        def hook(module: Any, args: tuple[Any, ...], output: Any) -> Any:
            if self._walk is None:
                return None
            whole = self._walk.leave_layer(index, hidden_of(output))
            return None if whole is None else replaced(output, whole)

        return hook

    def _remembering(self) -> Recall | None:
        pruner, rule = self.plan.pruner, self.method.history
        if rule is None or pruner.action_layer is None:
            return None
        attention = self.family.attention(self.plan.layers[pruner.action_layer])
        return Recall(pruner, rule, attention)

    def _heard(self) -> set[int]:
        """Layers whose queries and keys are listened to."""
        action = self.plan.pruner.action_layer
        return {*self.plan.probes, *([] if action is None else [action])}

    def _answers(
        self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any
    ) -> None:
        """The layer has run whose rows are remembered: in the prefill, or for a decoded token."""
        recall, step = self._recall, self._step
        if recall is None:
            return
        if self._walk is not None:
            recall.prefill(self._walk)
        elif step is not None and step.query is not None and step.rows == 1:
            layer = self.plan.pruner.action_layer or 0
            keys = kwargs["past_key_values"].layers[layer].keys
            phases = Phases(*kwargs["position_embeddings"])
            recall.step(step.query, keys, phases, step.valid(layer, keys.device))

    def _tap(self, name: str) -> Callable[..., Any]:
        def hook(module: Any, args: tuple[Any, ...], output: Tensor) -> None:
            if self._walk is not None:
                self._walk.taps[name] = output.detach()
            elif self._step is not None and name == "q":
                self._step.query = output.detach()

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
        if walk is None or output is None:  # none: the forward raised
            return
        if walk.cache is not None and (walk.zones or walk.dense):
            write_book(walk)
        if not walk.zones:
            return
        counts = self.counts
        counts.prefills += 1
        counts.calls, counts.selection_ms = self.plan.pruner.calls, self._timer.known_ms
        for into, of in ((counts.tokens_in, walk.tokens_in), (counts.tokens_out, walk.tokens_out)):
            into[:] = [total + tokens for total, tokens in zip(into, of, strict=False)]
        self.kept = walk.kept()


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


def seed_of(seed: int, prefill: int) -> int:
    """What a prefill of a session draws from: 32 bits, which is what torch's generator reads."""
    return int(np.random.SeedSequence((seed, prefill)).generate_state(1)[0])


def _checked(seed: int) -> int:
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise AdapterError(f"seed is {seed!r}: give a whole number, 0 or more")
    return seed


def _repacks(positions: str, family: Family, decoder: Any) -> bool:
    """True when the living are numbered anew.

    Raises:
        AdapterError: for another word, or where one new number per token is not enough.
    """
    if positions not in ("keep", "repack"):
        raise AdapterError(f"positions is {positions!r}: give 'keep' or 'repack'")
    if positions == "keep":
        return False
    if family.axes > 1:
        raise AdapterError(
            f"{family.name} numbers time, height and width, and tokens that move up have no such "
            "place of their own: leave positions at 'keep'"
        )
    if not hasattr(decoder, "rotary_emb"):
        raise AdapterError(
            f"{type(decoder).__name__} makes no rotary phases of its own: leave positions at 'keep'"
        )
    kind = str(getattr(decoder.rotary_emb, "rope_type", "default"))
    if "dynamic" in kind or "longrope" in kind:
        raise AdapterError(
            f"rotary phases of the kind {kind!r} depend on the length of the sequence: leave "
            "positions at 'keep'"
        )
    return True


def _check_needs(method: Method, family: Family) -> None:
    for need in sorted(method.needs):
        reason = NOT_HERE.get(need) or family.lacks(need)
        if reason:
            raise AdapterError(f"{method.name} needs {need!r}, and {reason}: choose another method")
