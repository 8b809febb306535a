"""The parameter table of an OpenVLA-family checkpoint: every key and its shape, from the config.

It is written down apart from the torch modules on purpose. Checkpoints are checked against it,
`inspect` counts parameters with it, and the modules are tested against it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from policy.openvla.config import OpenVLAConfig, TextConfig, TowerConfig

Shape = tuple[int, ...]
Shapes = dict[str, Shape]

TOWER_PREFIXES = ("vision_backbone.featurizer", "vision_backbone.fused_featurizer")
PARTS = ("vision_backbone", "projector", "language_model", "proprio_projector", "action_head")


def expected_shapes(config: OpenVLAConfig) -> Shapes:
    """Canonical key -> shape of every tensor that a checkpoint of this architecture holds."""
    width = config.text.hidden_size
    shapes: Shapes = {}
    for prefix, tower in zip(TOWER_PREFIXES, config.towers, strict=False):
        shapes |= _under(prefix, _tower(tower, width))
    shapes |= _under("projector", _projector(config))
    shapes |= _under("language_model", _decoder(config.text))
    if config.proprio_dim:
        projector = _linear("fc1", config.proprio_dim, width) | _linear("fc2", width, width)
        shapes |= _under("proprio_projector", projector)
    if config.head == "l1":
        shapes |= _under("action_head.model", _l1_head(width, config.dof))
    return shapes


def count_parameters(config: OpenVLAConfig) -> dict[str, int]:
    """Parameters of each part that the checkpoint has, by its key prefix."""
    shapes = expected_shapes(config)
    counts = {
        part: sum(math.prod(s) for key, s in shapes.items() if key.startswith(part + "."))
        for part in PARTS
    }
    return {part: count for part, count in counts.items() if count}


def _under(prefix: str, shapes: Shapes) -> Shapes:
    return {f"{prefix}.{key}": shape for key, shape in shapes.items()}


def _linear(name: str, width_in: int, width_out: int) -> Shapes:
    return {f"{name}.weight": (width_out, width_in), f"{name}.bias": (width_out,)}


def _norm(name: str, width: int) -> Shapes:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def _mlp(width: int, hidden: int) -> Shapes:
    return _linear("mlp.fc1", width, hidden) | _linear("mlp.fc2", hidden, width)


def _tower(tower: TowerConfig, text_width: int) -> Shapes:
    """One ViT, timm's names but for `scale_factor`; the positions are those of patches alone."""
    width, patch = tower.width, tower.patch_size
    shapes: Shapes = {
        "patch_embed.proj.weight": (width, 3, patch, patch),
        "patch_embed.proj.bias": (width,),
        "pos_embed": (1, tower.tokens, width),
    }
    if tower.class_token:
        shapes["cls_token"] = (1, 1, width)
    if tower.registers:
        shapes["reg_token"] = (1, tower.registers, width)
    for i in range(tower.depth):
        shapes |= _under(f"blocks.{i}", _block(tower, text_width))
    shapes |= _norm("norm", width)
    if tower.attn_pool:
        shapes |= _under("attn_pool", _attn_pool(width, tower.mlp_width))
    return shapes


def _block(tower: TowerConfig, text_width: int) -> Shapes:
    width = tower.width
    shapes = _norm("norm1", width) | _norm("norm2", width) | _mlp(width, tower.mlp_width)
    shapes |= _linear("attn.qkv", width, 3 * width) | _linear("attn.proj", width, width)
    if tower.layer_scale:
        shapes |= {"ls1.scale_factor": (width,), "ls2.scale_factor": (width,)}
    if tower.film:
        shapes |= _linear("scale", text_width, width) | _linear("shift", text_width, width)
    return shapes


def _attn_pool(width: int, hidden: int) -> Shapes:
    shapes: Shapes = {"latent": (1, 1, width)}
    shapes |= _linear("q", width, width) | _linear("kv", width, 2 * width)
    return shapes | _linear("proj", width, width) | _norm("norm", width) | _mlp(width, hidden)


def _projector(config: OpenVLAConfig) -> Shapes:
    vision, text = config.vision_width, config.text.hidden_size
    if not config.fused:
        return _linear("fc1", vision, text) | _linear("fc2", text, text)
    wide = _linear("fc1", vision, 4 * vision) | _linear("fc2", 4 * vision, text)
    return wide | _linear("fc3", text, text)


def _decoder(text: TextConfig) -> Shapes:
    """Hugging Face's Llama with an untied head; no biases."""
    width, hidden = text.hidden_size, text.intermediate_size
    kv = text.num_key_value_heads * text.head_dim
    layer: Shapes = {
        "self_attn.q_proj.weight": (width, width),
        "self_attn.k_proj.weight": (kv, width),
        "self_attn.v_proj.weight": (kv, width),
        "self_attn.o_proj.weight": (width, width),
        "mlp.gate_proj.weight": (hidden, width),
        "mlp.up_proj.weight": (hidden, width),
        "mlp.down_proj.weight": (width, hidden),
        "input_layernorm.weight": (width,),
        "post_attention_layernorm.weight": (width,),
    }
    shapes: Shapes = {"model.embed_tokens.weight": (text.vocab_size, width)}
    for i in range(text.num_hidden_layers):
        shapes |= _under(f"model.layers.{i}", layer)
    return shapes | {"model.norm.weight": (width,), "lm_head.weight": (text.vocab_size, width)}


def _l1_head(width: int, dof: int) -> Shapes:
    """OFT's MLPResNet with two residual blocks (arXiv 2502.19645)."""
    shapes = _norm("layer_norm1", width * dof) | _linear("fc1", width * dof, width)
    for i in range(2):
        block = f"mlp_resnet_blocks.{i}.ffn"
        shapes |= _norm(f"{block}.0", width) | _linear(f"{block}.1", width, width)
    return shapes | _norm("layer_norm2", width) | _linear("fc2", width, dof)
