"""The stages of a query as modules of static shape, ready to become graphs.

    vision -> below -> select -> above -> head                 chunks in parallel
    vision -> below -> select -> above -> head -> decode ...   one action token at a time

They run the very layers of the eager model; only padding of the prompt is added (`places.py`), and
everything that the host must see or keep (attention rows, caches) leaves as a plain tensor. Here
are the ends, `vision`, `select` and `head`; the decoder's stretches are in `stretches.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from engines.session import TensorSpec
from engines.stage import StageModule
from policy.openvla.decoder import Rope, rope_table
from pruning.types import PruneContext

if TYPE_CHECKING:
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
    Outputs: `visual [v, n, d]`, `text [1, t, d]`.
    """

    def __init__(self, model: OpenVLAModel, layout: Layout) -> None:
        config = model.config
        side, channels = config.towers[0].image_size, 3 * len(config.towers) * layout.views
        inputs = {
            "pixels": TensorSpec((1, channels, side, side), "float32"),
            "input_ids": TensorSpec((1, 1 + layout.prompt), "int64"),
        }
        super().__init__(model, layout, inputs | (PROMPT if model.film else {}))

    def compute(self, **inputs: Tensor) -> dict[str, Tensor]:
        """Visual tokens, and embeddings of BOS, padded prompt and stop token."""
        model = self.model
        text = model.text(inputs["input_ids"])
        language = self._mean(text, inputs["prompt"]) if model.film else None
        pixels = inputs["pixels"].to(self.wire.dtype)
        visual = model.projector(model.vision_backbone(pixels, language))[0]
        return {"visual": self.wire.out(visual), "text": self.wire.out(text)}

    def _mean(self, text: Tensor, prompt: Tensor) -> Float[Tensor, "1 d"]:
        """Mean of the real tokens, which FiLM reads."""
        index = torch.arange(text.shape[1])
        real = (index < 1) | (index >= 1 + self.layout.prompt - prompt)
        return (text * real[None, :, None].to(text.dtype)).sum(1) / real.sum().to(text.dtype)


class Select(StageModule):
    """A method's own choice, for one budget.

    Inputs: of `visual`, `attention_*`, `history` those that the method reads. Output: `kept`.

    Args:
        method: what chooses.
        layout: views and tokens.
        keep: tokens of each view that live.
        inputs: what it is fed.
    """

    def __init__(self, method: Method, layout: Layout, keep: int, inputs: Specs) -> None:
        super().__init__(inputs, optional=inputs)
        self.method, self.layout, self.keep = method, layout, keep

    def compute(self, **inputs: Tensor) -> dict[str, Tensor]:
        """Indices of the tokens that live, `[v, k]`."""
        layout = self.layout
        features = inputs.get("visual", torch.zeros(layout.views, layout.tokens, 1))
        prefix = "attention_"
        context = PruneContext(
            features=features.float(),
            keep=self.keep,
            attention={k.removeprefix(prefix): v for k, v in inputs.items() if prefix in k},
            history=inputs.get("history"),
        )
        return {"kept": self.method.select(context).kept}


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
