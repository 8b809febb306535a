"""The stages of a query as modules of static shape, ready to become graphs.

    vision -> below -> select -> above -> head                 chunks in parallel
    vision -> below -> select -> above -> head -> decode ...   one action token at a time

They run the very layers of the eager model; only padding of the prompt is added (`places.py`), and
everything that the host must see or keep (attention rows, caches) leaves as a plain tensor. Here
are the ends, `vision`, `select` and `head`; the decoder's stretches are in `stretches.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from engines.session import TensorSpec
from engines.stage import StageModule
from policy.openvla.decoder import Rope, rope_table
from policy.openvla.engine.looks import Frame, tower_looks
from policy.openvla.engine.spans import NEXT
from pruning.base import ROW_KINDS
from pruning.types import Heads, PruneContext

if TYPE_CHECKING:
    from collections.abc import Collection

    from jaxtyping import Float, Int64
    from torch import Tensor

    from engines.session import Specs
    from policy.openvla.config import OpenVLAConfig, TextConfig
    from policy.openvla.model import OpenVLAModel
    from policy.openvla.sequence import Layout
    from pruning.base import Method


class RopeTable(nn.Module):
    """Rotary phases of every position, looked up instead of computed in each query."""

    def __init__(self, model: OpenVLAModel, length: int) -> None:
        super().__init__()
        width = model.config.text.head_dim
        self.cos = nn.Parameter(torch.empty(length, width), requires_grad=False)
        self.sin = nn.Parameter(torch.empty(length, width), requires_grad=False)

    def forward(self, position: Int64[Tensor, " s"]) -> Rope:
        """The phases at some positions."""
        return Rope(self.cos.index_select(0, position), self.sin.index_select(0, position))

    @staticmethod
    def values(text: TextConfig, length: int) -> dict[str, Tensor]:
        """Its parameters by name; `length` is one past the largest position."""
        cos, sin = rope_table(text, torch.arange(length))
        return {"rope.cos": cos, "rope.sin": sin}


class Wire:
    """Names of the types in which tensors pass between stages.

    numpy has no bfloat16: such a network talks in float32.

    Args:
        model: the network.
    """

    def __init__(self, model: OpenVLAModel) -> None:
        self.dtype = model.language_model.lm_head.weight.dtype
        half = self.dtype == torch.float16
        self.float = "float16" if half else "float32"

    def spec(self, *shape: int) -> TensorSpec:
        """A floating-point tensor."""
        return TensorSpec(shape, self.float)

    def out(self, tensor: Tensor) -> Tensor:
        """A tensor as it leaves."""
        return tensor.to(torch.float16 if self.float == "float16" else torch.float32)


PROMPT = {"prompt": TensorSpec((1,), "int64")}


class Stage(StageModule):
    """What all stages share: the network, the layout with the longest prompt, rotary phases."""

    def __init__(self, model: OpenVLAModel, layout: Layout, inputs: Specs) -> None:
        super().__init__(inputs)
        self.model, self.layout, self.wire = model, layout, Wire(model)
        self.rope = RopeTable(model, table_length(model.config, layout))

    @property
    def layers(self) -> nn.ModuleList:
        """The decoder's layers."""
        return self.model.language_model.model.layers


def table_length(config: OpenVLAConfig, layout: Layout) -> int:
    """Positions that a query can reach, decoded tokens included."""
    return layout.length + (0 if layout.actions else config.dof)


def text_length(model: OpenVLAModel, layout: Layout) -> int:
    """BOS, the longest prompt, and the stop token of parallel decoding."""
    return 1 + layout.prompt + (0 if model.causal else 1)


class Vision(Stage):
    """Frames and words to tokens in the decoder's space.

    Inputs: `pixels`, `input_ids` (BOS, padding, prompt), and with FiLM `prompt` (its length).
    Outputs: `visual [v, n, d]`, `text [1, t, d]`, and what a method reads of the towers.

    Args:
        model: the network.
        layout: with the longest prompt.
        looks: of `tower_features`, `tower_keys`, `tower_attention`.
    """

    def __init__(self, model: OpenVLAModel, layout: Layout, looks: Collection[str] = ()) -> None:
        config = model.config
        side, channels = config.towers[0].image_size, 3 * len(config.towers) * layout.views
        inputs = {
            "pixels": TensorSpec((1, channels, side, side), "float32"),
            "input_ids": TensorSpec((1, 1 + layout.prompt), "int64"),
        }
        super().__init__(model, layout, inputs | (PROMPT if model.film else {}))
        self.looks = frozenset(looks)

    def compute(self, **inputs: Tensor) -> dict[str, Tensor]:
        """Visual tokens, and embeddings of BOS, padded prompt and stop token."""
        model = self.model
        text = model.text(inputs["input_ids"])
        language = self._mean(text, inputs["prompt"]) if model.film else None
        pixels, probes = inputs["pixels"].to(self.wire.dtype), []  # type: ignore[var-annotated]
        inside = probes if self.looks - {"tower_features"} else None
        tower = model.vision_backbone(pixels, language, inside)[0]
        out = {"visual": self.wire.out(model.projector(tower)), "text": self.wire.out(text)}
        if "tower_features" in self.looks:
            out["tower"] = tower.float()
        return out | (tower_looks(probes) if probes else {})

    def _mean(self, text: Tensor, prompt: Tensor) -> Float[Tensor, "1 d"]:
        """Mean of the real tokens, which FiLM reads."""
        index = torch.arange(text.shape[1])
        real = (index < 1) | (index >= 1 + self.layout.prompt - prompt)
        return (text * real[None, :, None].to(text.dtype)).sum(1) / real.sum().to(text.dtype)


class Select(StageModule):
    """A method's own choice at one of its cuts, for one budget.

    Inputs: those of `select_inputs` that the method reads. Outputs: `kept`, and `merge` where the
    method merges.

    Args:
        method: what chooses.
        layout: views and tokens.
        keep: tokens of each view that live.
        number: which of the method's cuts.
        inputs: what it is fed.
    """

    def __init__(
        self, method: Method, layout: Layout, keep: int, number: int, inputs: Specs
    ) -> None:
        super().__init__(inputs, optional=inputs)
        self.method, self.layout, self.keep, self.number = method, layout, keep, number

    def compute(self, **inputs: Tensor) -> dict[str, Tensor]:
        """Indices of the tokens that live, `[v, k]`, among those that were there."""
        selection = self.method.select(self._context(inputs))
        kept = {"kept": selection.kept}
        return kept if selection.merge is None else {**kept, "merge": selection.merge.float()}

    def _context(self, inputs: dict[str, Tensor]) -> PruneContext:
        views, prefix = self.layout.views, "attention_"
        present = inputs.get("present")
        tokens = self.layout.tokens if present is None else present.shape[1]
        fields: dict[str, Any] = {
            name: _of(inputs[key].float(), present) for name, key in LIVING.items() if key in inputs
        }
        fields.setdefault("features", torch.zeros(views, tokens, 1))
        frame = Frame(self.layout, tokens, False)
        if "prompt" in inputs:
            at = torch.arange(self.layout.prompt)
            said = at >= self.layout.prompt - inputs["prompt"]
            fields["text_mask"] = said.expand(views, -1)
        if "text" in inputs:
            words = inputs["text"][0, 1 : 1 + self.layout.prompt].float()
            fields["text_features"] = words.expand(views, -1, -1)
        if "hidden" in inputs:
            hidden = inputs["hidden"][0].float()
            fields["hidden"] = hidden[frame.visual].unflatten(0, (views, -1))
            fields["text_hidden"] = hidden[frame.text].expand(views, -1, -1)
        if "text_rows" in inputs:
            fields["text_rows"] = inputs["text_rows"].unflatten(1, (views, -1)).transpose(0, 1)
        if "heads_q" in inputs:
            keys = inputs["heads_k"].unflatten(1, (views, -1)).transpose(0, 1)
            fields["heads"] = Heads(inputs["heads_q"].expand(views, -1, -1, -1), keys)
        if "transition" in inputs:
            fields["transition"] = inputs["transition"]
        rows = {k.removeprefix(prefix): v for k, v in inputs.items() if k.startswith(prefix)}
        tower = {k: _of(v, present) for k, v in rows.items() if k.startswith("tower")}
        return PruneContext(
            keep=self.keep, attention=rows | tower, stage=self.number, views=views, **fields
        )


LIVING = {
    "features": "visual",
    "history": "history",
    "tower_features": "tower",
    "tower_keys": "tower_keys",
}
"""Fields of a context that are computed for every token, and the tensors that hold them."""


def _of(values: Float[Tensor, "v n ..."], present: Int64[Tensor, "v k"] | None) -> Tensor:
    """Those of the visual tokens that are still there."""
    if present is None:
        return values
    shape = (*present.shape, *[1] * (values.ndim - 2))
    return values.gather(1, present.view(shape).expand(*present.shape, *values.shape[2:]))


def select_inputs(
    config: OpenVLAConfig, layout: Layout, needs: Collection[str], before: int, wire: str
) -> Specs:
    """Everything that a choice with these needs may read, `before` tokens per view being there."""
    text, v, n = config.text, layout.views, layout.tokens
    width, length = text.hidden_size, Frame(layout, before, False).length
    stop = 1 if config.decoding == "parallel" else 0
    asked = (text.num_attention_heads, layout.prompt, text.head_dim)
    keys = (text.num_key_value_heads, v * before, text.head_dim)
    many, here = TensorSpec((v, n), "float32"), TensorSpec((v, before), "float32")
    table = {
        "features": {"visual": TensorSpec((v, n, width), wire)},
        "text_features": {"text": TensorSpec((1, 1 + layout.prompt + stop, width), wire)},
        "hidden": {"hidden": TensorSpec((1, length, width), wire)},
        "text_hidden": {"hidden": TensorSpec((1, length, width), wire)},
        "text_rows": {"text_rows": TensorSpec((layout.prompt, v * before), "float32")},
        "heads": {"heads_q": TensorSpec(asked, "float32"), "heads_k": TensorSpec(keys, "float32")},
        "transition": {"transition": here},
        "history": {"history": many},
        "tower_features": {"tower": TensorSpec((v, n, config.vision_width), "float32")},
        "tower_keys": {"tower_keys": TensorSpec((v, n, _key_width(config)), "float32")},
        "tower_attention": {"attention_tower_mean": many}
        | ({"attention_tower_cls": many} if any(t.class_token for t in config.towers) else {}),
    }
    rows = {kind: {f"attention_{kind}": here} for kind in ROW_KINDS | NEXT}
    inputs: Specs = {}
    for need in sorted(needs):
        inputs |= (table | rows)[need]
    if {"text_features", "text_hidden", "text_rows", "heads"} & set(needs):
        inputs |= PROMPT
    return inputs | ({"present": TensorSpec((v, before), "int64")} if before < n else {})


def _key_width(config: OpenVLAConfig) -> int:
    return sum(tower.width // tower.heads for tower in config.towers)


class Head(StageModule):
    """Hidden states of the action rows to actions.

    Input: `rows [1, a, d]`. Output: `tokens [a]`, or `values [chunk, dof]` with an L1 head.
    """

    def __init__(self, model: OpenVLAModel, layout: Layout) -> None:
        wire, width = Wire(model), model.config.text.hidden_size
        super().__init__({"rows": wire.spec(1, max(1, layout.actions), width)})
        self.model, self.wire = model, wire

    def compute(self, **inputs: Tensor) -> dict[str, Tensor]:
        """Token ids, or values."""
        model, rows = self.model, inputs["rows"].to(self.wire.dtype)
        if model.action_head is not None:
            hidden = model.language_model.model.norm(rows)
            return {"values": model.action_head(hidden)[0].float()}
        return {"tokens": model.language_model.logits(rows)[0].argmax(-1)}
