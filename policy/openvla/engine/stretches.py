"""Stretches of the decoder as stages: the full layers below the cut, the others above, one step.

See `stages.py` for the walk, `places.py` for how a padded prompt changes nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch.nn import functional

from engines.session import TensorSpec
from policy.openvla.decoder import KeyValue
from policy.openvla.engine.places import Places, as_bias, places
from policy.openvla.engine.stages import PROMPT, Stage, Wire, text_length
from pruning.attention_rows import THINNED, attention_rows

if TYPE_CHECKING:
    from collections.abc import Iterable

    from jaxtyping import Float, Int64
    from torch import Tensor

    from engines.session import Specs
    from policy.openvla.model import OpenVLAModel
    from policy.openvla.sequence import Layout


class Run(NamedTuple):
    """What a stretch of decoder layers leaves behind.

    Attributes:
        x: hidden states.
        keys: of every layer, when a cache is kept.
        values: of every layer, when a cache is kept.
        probe: queries and keys of the last layer.
        action: mean attention of the action rows at the action layer, when it is among them.
    """

    x: Float[Tensor, "1 s d"]
    keys: list[Tensor]
    values: list[Tensor]
    probe: tuple[Tensor, Tensor]
    action: Tensor | None


class Stretch(Stage):
    """Decoder layers `first ... last - 1`, on all tokens or on those that live.

    Args:
        model: the network.
        layout: with the longest prompt.
        span: first layer, and one past the last.
        kept: visual tokens of each view that are there; None for all.
        action_layer: layer whose action rows the host remembers; None for none.
        inputs: shape and type of every input.
    """

    def __init__(
        self,
        model: OpenVLAModel,
        layout: Layout,
        span: tuple[int, int],
        kept: int | None,
        action_layer: int | None,
        inputs: Specs,
    ) -> None:
        super().__init__(model, layout, inputs)
        self.span, self.action_layer = range(*span), action_layer
        self.tokens = layout.tokens if kept is None else kept
        self.gone = layout.views * (layout.tokens - self.tokens)

    def go(self, x: Float[Tensor, "1 s d"], there: Places) -> Run:
        """Run the layers."""
        causal = self.model.causal
        rope, mask = self.rope(there.position), there.mask(causal, x.dtype)
        keys, values, action = [], [], None
        for index in self.span:
            out = self.layers[index](x, rope, causal=causal, mask=mask)
            x, probe = out.x, (out.q, out.cache.k)
            keys.append(out.cache.k[0])
            values.append(out.cache.v[0])
            if index == self.action_layer:
                action = self.attention(probe, ["action"], there)["action"]
        return Run(x, keys, values, probe, action)

    def attention(
        self, probe: tuple[Tensor, Tensor], kinds: Iterable[str], there: Places, stride: int = 1
    ) -> dict[str, Float[Tensor, "v n"]]:
        """Mean attention that visual tokens get from rows of each kind, padding left out."""
        rows = {kind: self._rows(kind, stride) for kind in kinds}
        weights = {
            kind: self._weights(index, kind, stride, there)
            for kind, index in rows.items()
            if kind in THINNED
        }
        means = attention_rows(
            *probe,
            rows,
            slice(1, 1 + self.layout.visual - self.gone),
            causal=self.model.causal,
            key_mask=there.real[None],
            row_weights=weights,
        )
        return {kind: row.view(self.layout.views, self.tokens) for kind, row in means.items()}

    def cached(self, parts: list[Tensor]) -> Float[Tensor, "l kv c dh"]:
        """Keys or values of all layers, with room for the tokens that will be decoded."""
        room = self.model.config.dof - 1
        return self.wire.out(functional.pad(torch.stack(parts), (0, 0, 0, room)))

    def _rows(self, kind: str, stride: int) -> Int64[Tensor, " r"]:
        """Indices of the rows of a kind; of those before the prompt only every `stride`-th."""
        layout = self.layout
        start, end = layout.text_start - self.gone, layout.prompt_end - self.gone
        if kind == "prefill":
            return torch.cat([torch.arange(0, start, stride), torch.arange(start, end)])
        if kind == "text":
            return torch.arange(start, end)
        if kind == "last":
            return torch.arange(end - 1, end)
        rows = layout.action_rows
        return torch.arange(rows.start - self.gone, rows.stop - self.gone)

    def _weights(self, rows: Tensor, kind: str, stride: int, there: Places) -> Float[Tensor, " r"]:
        """1 for every row that counts: no padding, and in step with the stride."""
        first = 0 if kind == "prefill" else self.layout.text_start
        counts = there.real[rows]
        if stride > 1:
            counts = counts & ((there.position[rows] - first) % stride == 0)
        return counts.float()


class Below(Stretch):
    """The full layers: the sequence is laid out, and the rows that a method reads are reduced.

    Args:
        model: the network.
        layout: with the longest prompt.
        cut: layers to run.
        action_layer: layer whose action rows the host remembers, when it is below the cut.
        rows: row kinds that leave.
        stride: see `Method.row_stride`.
    """

    def __init__(
        self,
        model: OpenVLAModel,
        layout: Layout,
        cut: int,
        action_layer: int | None,
        rows: tuple[str, ...],
        stride: int,
    ) -> None:
        wire, config = Wire(model), model.config
        width = config.text.hidden_size
        inputs = {
            "visual": wire.spec(layout.views, layout.tokens, width),
            "text": wire.spec(1, text_length(model, layout), width),
            **PROMPT,
        }
        if config.proprio_dim:
            inputs["proprio"] = TensorSpec((1, config.proprio_dim), "float32")
        super().__init__(model, layout, (0, cut), None, action_layer, inputs)
        self.rows, self.stride = rows, stride

    def compute(self, **inputs: Tensor) -> dict[str, Tensor]:
        """Hidden states before the cut, and what the host and the method read."""
        there, dtype = places(self.layout, inputs["prompt"]), self.wire.dtype
        proprio = inputs["proprio"].to(dtype) if "proprio" in inputs else None
        visual, text = inputs["visual"].to(dtype), inputs["text"].to(dtype)
        run = self.go(self.model.sequence(visual[None], text, proprio), there)
        out = {"hidden": self.wire.out(run.x)}
        if self.rows:
            means = self.attention(run.probe, self.rows, there, self.stride)
            out |= {f"attention_{kind}": means[kind] for kind in self.rows}
        if run.action is not None:
            out["action_attention"] = run.action
        if self.model.causal:
            out |= {"keys_below": self.cached(run.keys), "values_below": self.cached(run.values)}
        return out


class Above(Stretch):
    """The gather, and the layers on what lives.

    Args:
        model: the network.
        layout: with the longest prompt.
        cut: first layer.
        kept: visual tokens of each view that live; None for all, and nothing is gathered.
        action_layer: layer whose action rows the host remembers, when it is above the cut.
    """

    def __init__(
        self,
        model: OpenVLAModel,
        layout: Layout,
        cut: int,
        kept: int | None,
        action_layer: int | None,
    ) -> None:
        last, width = model.config.text.num_hidden_layers, model.config.text.hidden_size
        inputs = {"hidden": Wire(model).spec(1, layout.length, width), **PROMPT}
        if kept is not None:
            inputs["kept"] = TensorSpec((layout.views, kept), "int64")
        super().__init__(model, layout, (cut, last), kept, action_layer, inputs)

    def compute(self, **inputs: Tensor) -> dict[str, Tensor]:
        """Hidden states of the action rows after the last layer, and what the host keeps."""
        there, hidden = places(self.layout, inputs["prompt"]), inputs["hidden"].to(self.wire.dtype)
        if "kept" in inputs:
            index = self._living(inputs["kept"])
            hidden, there = hidden.index_select(1, index), there.at(index)
        run = self.go(hidden, there)
        rows = self.layout.action_rows
        moved = run.x[:, rows.start - self.gone : rows.stop - self.gone]
        out = {"rows": self.wire.out(moved)}
        if run.action is not None:
            out["action_attention"] = run.action
        if self.model.causal:
            out |= {"keys_above": self.cached(run.keys), "values_above": self.cached(run.values)}
        return out

    def _living(self, kept: Int64[Tensor, "v k"]) -> Int64[Tensor, " s"]:
        """Indices of all tokens that live: BOS, the kept ones, and everything that is no image."""
        layout = self.layout
        offset = 1 + torch.arange(layout.views)[:, None] * layout.tokens
        rest = torch.arange(1 + layout.visual, layout.length)
        return torch.cat([torch.zeros(1, dtype=torch.int64), (kept + offset).view(-1), rest])


class Decode(Stage):
    """One more action token on the cache.

    Args:
        model: the network.
        layout: with the longest prompt.
        cut: layers whose cache holds all tokens.
        kept: visual tokens of each view in the caches above the cut; None for all.
        action_layer: layer whose attention the host remembers; None for none.
    """

    def __init__(
        self,
        model: OpenVLAModel,
        layout: Layout,
        cut: int,
        kept: int | None,
        action_layer: int | None,
    ) -> None:
        self.cut, self.action_layer = cut, action_layer
        self.tokens = layout.tokens if kept is None else kept
        single = TensorSpec((1,), "int64")
        inputs = {"token": single, "step": single, **PROMPT}
        text = model.config.text
        gone = layout.views * (layout.tokens - self.tokens)
        for name, layers, length in (
            ("below", cut, layout.length),
            ("above", text.num_hidden_layers - cut, layout.length - gone),
        ):
            slots = length + model.config.dof - 1
            spec = Wire(model).spec(layers, text.num_key_value_heads, slots, text.head_dim)
            inputs |= {f"keys_{name}": spec, f"values_{name}": spec}
        super().__init__(model, layout, inputs)

    def compute(self, **inputs: Tensor) -> dict[str, Tensor]:
        """The next token, and the keys and values of this one for the host to put into place."""
        language, layout = self.model.language_model, self.layout
        token, step, prompt = inputs["token"], inputs["step"], inputs["prompt"]
        x = language.model.embed_tokens(token)[None]
        rope = self.rope(layout.text_start + prompt + step)
        below = self._mask(layout.tokens, prompt, step, x.dtype)
        above = self._mask(self.tokens, prompt, step, x.dtype)
        past = [
            pair
            for part in ("below", "above")
            for pair in zip(inputs[f"keys_{part}"], inputs[f"values_{part}"], strict=True)
        ]
        new, out = [], {}
        for index, layer in enumerate(self.layers):
            k, v = (part.to(x.dtype)[None] for part in past[index])
            full = index < self.cut
            mask = below if full else above
            step_out = layer(x, rope, causal=False, past=KeyValue(k, v), mask=mask)
            x = step_out.x
            new.append(KeyValue(*(part[0, :, -1:] for part in step_out.cache)))
            if index == self.action_layer:
                tokens = layout.tokens if full else self.tokens
                rows = (step_out.q, step_out.cache.k)
                out["action_attention"] = self._looks(*rows, mask, tokens)
        out["next"] = language.logits(x)[0].argmax(-1)
        for name, span in (("below", new[: self.cut]), ("above", new[self.cut :])):
            out[f"new_keys_{name}"] = self.wire.out(torch.stack([cache.k for cache in span]))
            out[f"new_values_{name}"] = self.wire.out(torch.stack([cache.v for cache in span]))
        return out

    def _mask(
        self, tokens: int, prompt: Tensor, step: Tensor, dtype: torch.dtype
    ) -> Float[Tensor, "1 1 1 c"]:
        """Which slots of a cache hold a token, and then the new token itself."""
        layout = self.layout
        gone = layout.views * (layout.tokens - tokens)
        length = layout.length - gone
        index = torch.arange(length + self.model.config.dof)
        start = layout.text_start - gone
        padding = (index >= start) & (index < start + layout.prompt - prompt)
        newest = index == length + self.model.config.dof - 1
        return as_bias(((index < length + step) & ~padding) | newest, dtype)[None, None, None]

    def _looks(self, q: Tensor, k: Tensor, mask: Tensor, tokens: int) -> Float[Tensor, "v k"]:
        """Mean attention over heads of the new token to the visual ones."""
        columns = slice(1, 1 + self.layout.views * tokens)
        seen = mask[0, 0] == 0
        row = attention_rows(q, k, {"new": slice(None)}, columns, causal=False, key_mask=seen)
        return row["new"].view(self.layout.views, tokens)
