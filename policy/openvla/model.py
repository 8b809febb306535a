"""The OpenVLA network: one module for every size, for one action token at a time or whole chunks.

`sequence.py` says how its parts are laid out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from policy.openvla.decoder import LlamaDecoder
from policy.openvla.heads import L1ActionHead, ProprioProjector
from policy.openvla.sequence import STOP_ID, layout_of
from policy.openvla.vision import Projector, VisionBackbone

if TYPE_CHECKING:
    from jaxtyping import Float, Int64
    from torch import Tensor

    from policy.openvla.config import OpenVLAConfig
    from policy.openvla.sequence import Layout


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
        return layout_of(self.config, input_ids.shape[1] - 1)

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
