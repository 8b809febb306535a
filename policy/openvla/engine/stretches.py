"""Stretches of the decoder as stages: layers up to a cut, layers from one cut on, one decode step.

See `stages.py` for the walk, `places.py` for how a padded prompt changes nothing. A float32 layer
whose rows a choice averages writes its attention out, and the rows are read off it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

from engines.session import TensorSpec
from policy.openvla.decoder import KeyValue
from policy.openvla.engine.looks import Frame, Probe, next_layer, probed, row_means
from policy.openvla.engine.places import Places, as_bias, places
from policy.openvla.engine.stages import PROMPT, Stage, Wire, text_length
from pruning.attention_rows import attention_rows
from pruning.transition import transition_variation

if TYPE_CHECKING:
    from jaxtyping import Float, Int64
    from torch import Tensor

    from engines.session import Specs
    from policy.openvla.engine.spans import Span
    from policy.openvla.model import OpenVLAModel
    from policy.openvla.sequence import Layout


class Layers(Stage):
    """A span of decoder layers; the first one lays the sequence out, the others take it over.

    Inputs of the first: `visual`, `text`, `prompt`, `proprio`. Of the others: `arriving` (hidden
    states), `prompt`, `kept` (among the tokens that arrive), `present` (which those are, when some
    have left before), `merge`, `traced`. Outputs: `hidden`, or `rows` (the action rows) after the
    last layer, and what the host and the next choice read.
    """

    def __init__(self, model: OpenVLAModel, layout: Layout, span: Span) -> None:
        self.span = span
        self.end = span.last == model.config.text.num_hidden_layers
        self.frame = Frame(layout, span.tokens, model.causal)
        begins = span.first == 0 and not span.gathers
        inputs = _first(model, layout) if begins else _later(model, layout, span)
        if span.last == 0 and not span.looks:  # nobody asks for positions
            del inputs["prompt"]
        super().__init__(model, layout, inputs)

    def compute(self, **inputs: Tensor) -> dict[str, Tensor]:
        """Run the span."""
        longest = torch.full((1,), self.layout.prompt)
        there, dtype = places(self.layout, inputs.get("prompt", longest)), self.wire.dtype
        trace = inputs.get("traced")
        if "arriving" in inputs:
            x, there, trace = self._arrive(inputs, there, trace)
        else:
            proprio = inputs["proprio"].to(dtype) if "proprio" in inputs else None
            visual, text = inputs["visual"].to(dtype), inputs["text"].to(dtype)
            x = self.model.sequence(visual[None], text, proprio)
        return self._go(x, there, trace)

    def _arrive(
        self, inputs: dict[str, Tensor], there: Places, trace: Tensor | None
    ) -> tuple[Tensor, Places, Tensor | None]:
        """Take over hidden states, and let tokens leave."""
        x, before = inputs["arriving"].to(self.wire.dtype), self.span.before
        if "present" in inputs:
            there = there.at(_living(self.layout, inputs["present"], self.layout.tokens))
        if "kept" not in inputs:
            return x, there, trace
        index = _living(self.layout, inputs["kept"], before)
        there, short = there.at(index), x.index_select(1, index)
        if "merge" in inputs:
            visual = x[0, 1 : 1 + self.layout.views * before].unflatten(0, (-1, before))
            mixed = (inputs["merge"].to(x.dtype) @ visual).flatten(0, 1)
            short = torch.cat([short[:, :1], mixed[None], short[:, 1 + len(mixed) :]], 1)
        return short, there, None if trace is None else trace.index_select(1, index)

    def _go(
        self, x: Float[Tensor, "1 s d"], there: Places, trace: Tensor | None
    ) -> dict[str, Tensor]:
        span, frame, causal = self.span, self.frame, self.model.causal
        rope, mask = self.rope(there.position), there.mask(causal, x.dtype)
        caches, out = [], {}
        for index in range(span.first, span.last):
            traced = span.trace_from is not None and index >= span.trace_from
            changes: list[tuple[Tensor, Tensor]] = []
            shown: list[Tensor] | None = [] if self._shows(index, x.dtype) else None
            # Where attention is written out, one row of a mask serves all and is read faster.
            added = mask if causal or shown is None else there.row(x.dtype)
            done = self.layers[index](
                x, rope, causal=causal, mask=added, trace=changes if traced else None, shown=shown
            )
            x, probe = done.x, Probe(done.q, done.cache.k, shown[0] if shown else None)
            caches.append(done.cache)
            for given, change in changes:
                step = transition_variation(given, change, there.real)
                trace = step if trace is None else trace + step
            if index == span.action_layer:
                rows = row_means(frame, (probe.q, probe.k), ["action"], there)
                out["action_attention"] = rows["action"]
        if causal and caches:
            out |= self._cached(caches)
        if self.end:
            return {"rows": self.wire.out(x[:, frame.moved(self.layout.action_rows)]), **out}
        if trace is not None:
            out |= {"trace": trace, "transition": frame.by_view(trace[:, frame.visual])}
        if span.last > span.first:
            out |= probed(frame, probe, span.looks, there, span.stride)
        following: Any = self.layers[span.last]
        out |= next_layer(frame, following, x, rope, there, span.looks)
        return {"hidden": self.wire.out(x), **out}

    def _shows(self, index: int, dtype: torch.dtype) -> bool:
        """Whether a layer writes its attention out, since nearly all of its rows are read.

        Scores are compared in fp32, so a half-precision layer computes the rows once more.
        """
        last = index == self.span.last - 1
        return last and "prefill" in self.span.looks and dtype == torch.float32

    def _cached(self, caches: list[KeyValue]) -> dict[str, Tensor]:
        """Keys and values, with room for the tokens that will be decoded."""
        room, found = (0, 0, 0, self.model.config.dof - 1), {}
        for name, parts in (("keys", [c.k for c in caches]), ("values", [c.v for c in caches])):
            padded = functional.pad(torch.cat(parts), room)
            found[f"{name}_{self.span.first}"] = self.wire.out(padded)
        return found


def _first(model: OpenVLAModel, layout: Layout) -> Specs:
    wire, width = Wire(model), model.config.text.hidden_size
    inputs = {
        "visual": wire.spec(layout.views, layout.tokens, width),
        "text": wire.spec(1, text_length(model, layout), width),
        **PROMPT,
    }
    if model.config.proprio_dim:
        inputs["proprio"] = TensorSpec((1, model.config.proprio_dim), "float32")
    return inputs


def _later(model: OpenVLAModel, layout: Layout, span: Span) -> Specs:
    length = Frame(layout, span.before, model.causal).length
    width = model.config.text.hidden_size
    inputs = {"arriving": Wire(model).spec(1, length, width), **PROMPT}
    if span.before < layout.tokens:
        inputs["present"] = TensorSpec((layout.views, span.before), "int64")
    if span.gathers:
        inputs["kept"] = TensorSpec((layout.views, span.tokens), "int64")
        if span.merges:
            inputs["merge"] = TensorSpec((layout.views, span.tokens, span.before), "float32")
    if span.carries_trace:
        inputs["traced"] = TensorSpec((1, length), "float32")
    return inputs


def _living(layout: Layout, kept: Int64[Tensor, "v k"], tokens: int) -> Int64[Tensor, " s"]:
    """Indices of BOS, of these of `tokens` visual ones per view, and of all that is no image."""
    visual = layout.views * tokens
    offset = 1 + torch.arange(layout.views)[:, None] * tokens
    rest = torch.arange(1 + visual, layout.length - layout.visual + visual)
    return torch.cat([torch.zeros(1, dtype=torch.int64), (kept + offset).view(-1), rest])


class Decode(Stage):
    """One more action token on the caches.

    Args:
        model: the network.
        layout: with the longest prompt.
        spans: first layer, one past the last, and visual tokens of each view, of every cache.
        action_layer: layer whose attention the host remembers; None for none.
    """

    def __init__(
        self,
        model: OpenVLAModel,
        layout: Layout,
        spans: tuple[tuple[int, int, int], ...],
        action_layer: int | None,
    ) -> None:
        self.spans, self.action_layer = spans, action_layer
        single = TensorSpec((1,), "int64")
        inputs = {"token": single, "step": single, **PROMPT}
        text = model.config.text
        for first, last, tokens in spans:
            slots = Frame(layout, tokens, True).length + model.config.dof - 1
            spec = Wire(model).spec(last - first, text.num_key_value_heads, slots, text.head_dim)
            inputs |= {f"keys_{first}": spec, f"values_{first}": spec}
        super().__init__(model, layout, inputs)

    def compute(self, **inputs: Tensor) -> dict[str, Tensor]:
        """The next token, and the keys and values of this one for the host to put into place."""
        language, step, prompt = self.model.language_model, inputs["step"], inputs["prompt"]
        x = language.model.embed_tokens(inputs["token"])[None]
        rope, out = self.rope(self.layout.text_start + prompt + step), {}
        for first, last, tokens in self.spans:
            frame = Frame(self.layout, tokens, True)
            mask, new = self._mask(frame, prompt, step, x.dtype), []
            for index in range(first, last):
                pair = (inputs[f"{part}_{first}"][index - first] for part in ("keys", "values"))
                past = KeyValue(*(part[None].to(x.dtype) for part in pair))
                done = self.layers[index](x, rope, causal=False, past=past, mask=mask)
                x = done.x
                new.append(KeyValue(*(part[0, :, -1:] for part in done.cache)))
                if index == self.action_layer:
                    out["action_attention"] = _glance(frame, done.q, done.cache.k, mask)
            out[f"new_keys_{first}"] = self.wire.out(torch.stack([cache.k for cache in new]))
            out[f"new_values_{first}"] = self.wire.out(torch.stack([cache.v for cache in new]))
        return {"next": language.logits(x)[0].argmax(-1), **out}

    def _mask(
        self, frame: Frame, prompt: Tensor, step: Tensor, dtype: torch.dtype
    ) -> Float[Tensor, "1 1 1 c"]:
        """Which slots of a cache hold a token, and then the new token itself."""
        length, room = frame.length, self.model.config.dof
        index, start = torch.arange(length + room), frame.text.start
        padding = (index >= start) & (index < start + self.layout.prompt - prompt)
        newest = index == length + room - 1
        return as_bias(((index < length + step) & ~padding) | newest, dtype)[None, None, None]


def _glance(frame: Frame, q: Tensor, k: Tensor, mask: Tensor) -> Float[Tensor, "v k"]:
    """Mean attention over heads of the new token to the visual ones."""
    seen = mask[0, 0] == 0
    row = attention_rows(q, k, {"new": slice(None)}, frame.visual, causal=False, key_mask=seen)
    return frame.by_view(row["new"])
