"""Tiny random checkpoints in the published layout, one of every kind that the family has.

Tensors come from the parameter table, not from the torch modules, so a slip in either shows.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from policy.openvla.checkpoint import save_checkpoint
from policy.openvla.config import OpenVLAConfig, TextConfig, TowerConfig
from policy.openvla.layout import expected_shapes
from policy.openvla.mini_tokenizer import ACTION_VOCAB, EMPTY_TOKEN_ID, build_mini_tokenizer
from policy.openvla.towers import IMAGENET_MEAN, IMAGENET_STD

DINO = TowerConfig(
    "vit_tiny_dino",
    image_size=32,
    patch_size=8,
    width=16,
    depth=3,
    heads=2,
    mlp_width=24,
    class_token=True,
    registers=2,
    layer_scale=True,
    mean=IMAGENET_MEAN,
    std=IMAGENET_STD,
)
SIGLIP = TowerConfig("vit_tiny_siglip", 32, 8, 24, 3, 2, 40, attn_pool=True)
TEXT = TextConfig(
    vocab_size=ACTION_VOCAB + 64,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=4,
    num_attention_heads=4,
    num_key_value_heads=4,
)


def _stats(dof: int, proprio: int = 0) -> dict:
    def bounds(n: int) -> dict:
        low = [-0.5 - 0.1 * i for i in range(n)]
        high = [0.4 + 0.2 * i for i in range(n)]
        return {"q01": low, "q99": high, "min": low, "max": high}

    stats = {"action": bounds(dof) | {"mask": [True] * (dof - 1) + [False]}}
    if proprio:
        stats["proprio"] = bounds(proprio)
    return stats


_BASE = OpenVLAConfig(
    towers=(SIGLIP,),
    text=TEXT,
    norm_stats={"tiny_dataset": _stats(7)},
    empty_token_id=EMPTY_TOKEN_ID,
    action_names=tuple(f"a{i} [m]" for i in range(7)),
)
_OFT = replace(_BASE, decoding="parallel", chunk=3, views=("main", "wrist"))

CONFIGS = {
    "fused_ar": replace(_BASE, towers=(DINO, SIGLIP), norm_stats={"a": _stats(7), "b": _stats(7)}),
    "single_ar": _BASE,
    "oft_l1": replace(
        _OFT,
        towers=(replace(DINO, film=True), replace(SIGLIP, film=True)),
        head="l1",
        proprio_dim=5,
        state_names=tuple(f"s{i} [m]" for i in range(5)),
        norm_stats={"tiny_dataset": _stats(7, proprio=5)},
    ),
    "oft_discrete_1": replace(_OFT, views=("main",)),
    "oft_discrete_3": replace(_OFT, views=("high", "left", "right"), towers=(DINO, SIGLIP)),
}


def random_tensors(config: OpenVLAConfig, seed: int = 0) -> dict[str, torch.Tensor]:
    """Small random weights under canonical names; norms near one."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for key, shape in expected_shapes(config).items():
        noise = 0.1 * torch.randn(shape, generator=generator)
        one = key.endswith("weight") and len(shape) == 1
        tensors[key] = noise + 1.0 if one else noise
    return tensors


def write_tiny(folder: Path, kind: str | OpenVLAConfig, **options: int) -> OpenVLAConfig:
    """Write the checkpoint `CONFIGS[kind]` (or of a config) with tokenizer; returns its config."""
    config = CONFIGS[kind] if isinstance(kind, str) else kind
    tokenizer = folder.parent / f".{folder.name}-tokenizer"
    build_mini_tokenizer(tokenizer)
    files = sorted(tokenizer.iterdir())
    save_checkpoint(folder, config, random_tensors(config), files, **options)
    return config
