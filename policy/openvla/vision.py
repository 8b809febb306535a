"""The vision side: ViT towers with timm's parameter names, and the projector.

Each tower gives the patch tokens of its second-to-last block, without the final norm, prefix tokens
dropped. The last block, the final norm and SigLIP's attention pool are in published checkpoints, so
they are allocated and loaded, and never run.

FiLM follows OpenVLA-OFT (arXiv 2502.19645): `x * (1 + scale(l)) + shift(l)` between the attention
and the MLP of every block, `l` the mean embedding of the language tokens.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import nn
from torch.nn import functional

from policy.openvla.attention import attend

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from policy.openvla.config import OpenVLAConfig, TowerConfig

NORM_EPS = 1e-6


class TowerProbe(NamedTuple):
    """Queries and keys of a tower's last block that runs, prefix tokens (class token first) too."""

    q: Float[Tensor, "b h n e"]
    k: Float[Tensor, "b h n e"]
    prefix: int
    class_token: bool


class LayerScale(nn.Module):
    """Per-channel gain of a residual branch (`scale_factor`, not timm's `gamma`)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale_factor = nn.Parameter(torch.ones(width))

    def forward(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        """Scale every channel."""
        return x * self.scale_factor


class Attention(nn.Module):
    """Self-attention with one fused projection, timm's `attn.qkv` and `attn.proj`."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(
        self, x: Float[Tensor, "b n d"], probe: list[Tensor] | None = None
    ) -> Float[Tensor, "b n d"]:
        """Attend over all tokens of one view; a `probe` gets queries and keys."""
        b, n, d = x.shape
        q, k, v = self.qkv(x).view(b, n, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        if probe is not None:
            probe += [q, k]
        return self.proj(attend(q, k, v).transpose(1, 2).reshape(b, n, d))


class Mlp(nn.Module):
    """Two linear layers with an exact GELU between them."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        """Widen, bend, narrow."""
        return self.fc2(functional.gelu(self.fc1(x)))


class Block(nn.Module):
    """One pre-norm ViT block, with FiLM when the tower asks for it."""

    def __init__(self, tower: TowerConfig, text_width: int) -> None:
        super().__init__()
        width = tower.width
        self.norm1 = nn.LayerNorm(width, eps=NORM_EPS)
        self.attn = Attention(width, tower.heads)
        self.ls1 = LayerScale(width) if tower.layer_scale else nn.Identity()
        self.norm2 = nn.LayerNorm(width, eps=NORM_EPS)
        self.mlp = Mlp(width, tower.mlp_width)
        self.ls2 = LayerScale(width) if tower.layer_scale else nn.Identity()
        self.scale = nn.Linear(text_width, width) if tower.film else None
        self.shift = nn.Linear(text_width, width) if tower.film else None

    def forward(
        self,
        x: Float[Tensor, "b n d"],
        language: Float[Tensor, "b t"] | None,
        probe: list[Tensor] | None = None,
    ) -> Float[Tensor, "b n d"]:
        """Attention, modulation by language, MLP."""
        x = x + self.ls1(self.attn(self.norm1(x), probe))
        if self.scale is not None and self.shift is not None:
            x = x * (1 + self.scale(language)[:, None]) + self.shift(language)[:, None]
        return x + self.ls2(self.mlp(self.norm2(x)))


class AttentionPool(nn.Module):
    """SigLIP's pooling head: parameters only, it never runs here."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.latent = nn.Parameter(torch.zeros(1, 1, width))
        self.q = nn.Linear(width, width)
        self.kv = nn.Linear(width, 2 * width)
        self.proj = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.mlp = Mlp(width, hidden)


class PatchEmbed(nn.Module):
    """Non-overlapping patches as one strided convolution, `patch_embed.proj`."""

    def __init__(self, width: int, patch: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, patch, patch)

    def forward(self, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b n d"]:
        """Row-major patch tokens, computed as one matrix product (faster than conv on CPUs)."""
        b, c, h, w = pixels.shape
        size = self.proj.kernel_size[0]
        rows, columns = h // size, w // size
        pixels = pixels[..., : rows * size, : columns * size]  # as a strided convolution would
        tiles = pixels.reshape(b, c, rows, size, columns, size).permute(0, 2, 4, 1, 3, 5)
        return functional.linear(
            tiles.reshape(b, -1, c * size * size),
            self.proj.weight.flatten(1),
            self.proj.bias,
        )


class Tower(nn.Module):
    """One ViT, timm parameter names."""

    def __init__(self, tower: TowerConfig, text_width: int) -> None:
        super().__init__()
        width = tower.width
        self.prefix = int(tower.class_token) + tower.registers
        self.patch_embed = PatchEmbed(width, tower.patch_size)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width)) if tower.class_token else None
        self.reg_token = (
            nn.Parameter(torch.zeros(1, tower.registers, width)) if tower.registers else None
        )
        self.pos_embed = nn.Parameter(torch.zeros(1, tower.tokens, width))
        self.blocks = nn.ModuleList(Block(tower, text_width) for _ in range(tower.depth))
        self.norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.attn_pool = AttentionPool(width, tower.mlp_width) if tower.attn_pool else None

    def forward(
        self,
        pixels: Float[Tensor, "b 3 h w"],
        language: Float[Tensor, "b t"] | None = None,
        probes: list[TowerProbe] | None = None,
    ) -> Float[Tensor, "b n d"]:
        """Patch tokens after the second-to-last block, whose queries and keys `probes` gets."""
        x = self.patch_embed(pixels) + self.pos_embed
        prefix = [token for token in (self.cls_token, self.reg_token) if token is not None]
        if prefix:
            x = torch.cat([*(token.expand(len(x), -1, -1) for token in prefix), x], 1)
        last = len(self.blocks) - 2
        heard: list[Tensor] = []
        for index, block in enumerate(self.blocks[:-1]):
            x = block(x, language, heard if probes is not None and index == last else None)
        if probes is not None:
            q, k = heard
            probes.append(TowerProbe(q, k, self.prefix, self.cls_token is not None))
        return x[:, self.prefix :]


class VisionBackbone(nn.Module):
    """One tower, or two whose tokens are concatenated on the channel axis."""

    def __init__(self, config: OpenVLAConfig) -> None:
        super().__init__()
        text_width = config.text.hidden_size
        self.featurizer = Tower(config.towers[0], text_width)
        self.fused_featurizer = Tower(config.towers[1], text_width) if config.fused else None

    def forward(
        self,
        pixel_values: Float[Tensor, "b c h w"],
        language: Float[Tensor, "b t"] | None,
        probes: list[TowerProbe] | None = None,
    ) -> Float[Tensor, "b v n d"]:
        """Tokens of every view; each view brings 3 channels per tower, views in order.

        Views are encoded as one batch: same weights, one pass. `probes` gets one entry per tower.
        """
        per_view = 3 if self.fused_featurizer is None else 6
        b, channels, h, w = pixel_values.shape
        views = channels // per_view
        pixels = pixel_values.reshape(b * views, per_view, h, w)
        if language is not None:
            language = language.repeat_interleave(views, 0)
        tokens = self.featurizer(pixels[:, :3], language, probes)
        if self.fused_featurizer is not None:
            fused = self.fused_featurizer(pixels[:, 3:], language, probes)
            tokens = torch.cat([tokens, fused], -1)
        return tokens.view(b, views, *tokens.shape[1:])


class Projector(nn.Module):
    """Visual tokens into the decoder's space: three layers when fused, two otherwise."""

    def __init__(self, config: OpenVLAConfig) -> None:
        super().__init__()
        vision, text = config.vision_width, config.text.hidden_size
        inner = 4 * vision if config.fused else text
        self.fc1 = nn.Linear(vision, inner)
        self.fc2 = nn.Linear(inner, text)
        self.fc3 = nn.Linear(text, text) if config.fused else None

    def forward(self, x: Float[Tensor, "... d"]) -> Float[Tensor, "... e"]:
        """Project every token by itself."""
        x = self.fc2(functional.gelu(self.fc1(x)))
        return x if self.fc3 is None else self.fc3(functional.gelu(x))
