"""The OpenVLA network: one module for every size, for one action token at a time or whole chunks.

Sequence (OpenVLA-OFT with all parts; the others leave parts out):

    BOS | visual tokens of view 0, view 1, ... | proprio | prompt after BOS | placeholders | stop
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

from policy.openvla.decoder import LlamaDecoder
from policy.openvla.heads import L1ActionHead, ProprioProjector
from policy.openvla.vision import Projector, VisionBackbone

if TYPE_CHECKING:
    from jaxtyping import Float, Int64
    from torch import Tensor

    from policy.openvla.config import OpenVLAConfig

STOP_ID = 2


@dataclass(frozen=True)
class Layout:
    """Where things lie in a sequence.

    Attributes:
        views: cameras.
        tokens: visual tokens of each.
        proprio: 1 when a proprio token follows the visual ones.
        prompt: prompt tokens without BOS.
        actions: action placeholders (0 when decoding token by token).
    """

    views: int
    tokens: int
    proprio: int
    prompt: int
    actions: int

    @property
    def visual(self) -> int:
        """Visual tokens over all views; they start at position 1."""
        return self.views * self.tokens

    @property
    def text_start(self) -> int:
        """Position of the first prompt token after BOS."""
        return 1 + self.visual + self.proprio

    @property
    def prompt_end(self) -> int:
        """Position after the last prompt token: the first placeholder, when there are any."""
        return self.text_start + self.prompt

    @property
    def length(self) -> int:
        """Tokens in the whole sequence; a stop token closes one that has placeholders."""
        return self.prompt_end + self.actions + (1 if self.actions else 0)

    @property
    def action_rows(self) -> slice:
        """Positions whose outputs are the actions: one *before* each placeholder."""
        return slice(self.prompt_end - 1, self.prompt_end - 1 + max(1, self.actions))


class OpenVLAModel(nn.Module):
    """Towers, projector, decoder, and OFT's heads. Parameter names are the checkpoint's."""

    def __init__(self, config: OpenVLAConfig) -> None:
        super().__init__()
        self.config = config
        self.vision_backbone = VisionBackbone(config)
        self.projector = Projector(config)
        self.language_model = LlamaDecoder(config.text)
        self.proprio_projector = ProprioProjector(config) if config.proprio_dim else None
        self.action_head = L1ActionHead(config) if config.head == "l1" else None

    @property
    def film(self) -> bool:
        """Language modulates the vision towers."""
        return self.config.film

    @property
    def causal(self) -> bool:
        """OpenVLA reads from left to right, OFT's parallel decoding in both directions."""
        return self.config.decoding == "autoregressive"

    def layout(self, input_ids: Int64[Tensor, "b t"]) -> Layout:
        """The layout of a query with this prompt (BOS first)."""
        config = self.config
        parallel = config.decoding == "parallel"
        return Layout(
            views=len(config.views),
            tokens=config.tokens_per_view,
            proprio=1 if config.proprio_dim else 0,
            prompt=input_ids.shape[1] - 1,
            actions=config.chunk * config.dof if parallel else 0,
        )

    def text(self, input_ids: Int64[Tensor, "b t"]) -> Float[Tensor, "b t d"]:
        """Embeddings of BOS, prompt and, when decoding in parallel, the stop token."""
        if not self.causal:
            stop = torch.full_like(input_ids[:, :1], STOP_ID)
            input_ids = torch.cat([input_ids, stop], 1)
        return self.language_model.model.embed_tokens(input_ids)

    def see(
        self, pixel_values: Float[Tensor, "b c h w"], text: Float[Tensor, "b t d"]
    ) -> Float[Tensor, "b v n d"]:
        """Visual tokens in the decoder's space; FiLM reads the mean of the text embeddings."""
        language = text.mean(1) if self.film else None
        return self.projector(self.vision_backbone(pixel_values, language))

    def sequence(
        self,
        visual: Float[Tensor, "b v n d"],
        text: Float[Tensor, "b t d"],
        proprio: Float[Tensor, "b p"] | None,
    ) -> Float[Tensor, "b s d"]:
        """Lay the parts out as the decoder reads them; placeholders are zero vectors."""
        b, d = len(text), text.shape[-1]
        parts = [text[:, :1], visual.reshape(b, -1, d)]
        if self.proprio_projector is not None:
            parts.append(self.proprio_projector(proprio))
        if self.causal:
            return torch.cat([*parts, text[:, 1:]], 1)
        actions = text.new_zeros(b, self.config.chunk * self.config.dof, d)
        return torch.cat([*parts, text[:, 1:-1], actions, text[:, -1:]], 1)
