"""Names of tensors: what wrappers put around them in published files, and the canonical ones.

Canonical names are those of openvla-7b, with `proprio_projector.*`, `action_head.*`, and FiLM's
`vision_backbone.*.blocks.i.{scale,shift}.*` beside them.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

_BLOCK = re.compile(r"(\.blocks\.\d+)\.block\.")
_LAYER_SCALE = re.compile(r"\.(ls[12])\.gamma$")
_FILM = re.compile(r"\.blocks\.\d+\.(scale|shift)\.(weight|bias)$")
_WRAPPED = re.compile(r"(\.blocks\.\d+)\.(?!scale\.|shift\.)")
LORA_MAX_ALPHA = 16


def canonical(key: str, part: str = "") -> str:
    """The canonical name of `key` as found in the main weights, or in the side file of `part`.

    Data parallel's `module.`, the FiLM wrapper's second `vision_backbone.` and its `.block.` go
    away; timm's `gamma` becomes `scale_factor`.
    """
    if part:
        key = key.removeprefix("module.")
        while key.startswith(part + "."):
            key = key.removeprefix(part + ".")
        key = f"{part}.{key}"
    return _LAYER_SCALE.sub(r".\1.scale_factor", _BLOCK.sub(r"\1.", key))


def is_film(key: str) -> bool:
    """Whether a canonical name is one of FiLM's own linear layers."""
    return _FILM.search(key) is not None


def film_wrapped(key: str) -> str:
    """The name that OpenVLA-OFT's FiLM wrapper gives to a canonical vision tensor in its file."""
    return _WRAPPED.sub(r"\1.block.", key)


def merge_lora(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Fold unmerged LoRA factors into their weights: `W + min(r, 16) / r * B @ A`.

    OpenVLA-OFT saves FiLM towers with the factors of their fine-tuning still apart. The scale is
    fixed by its training script (alpha = min(rank, 16)), it is not in the file.
    """
    merged = {}
    for key, tensor in tensors.items():
        if ".lora_A." in key or ".lora_B." in key:
            continue
        name = key.replace(".base_layer.", ".")
        stem = name.removesuffix(".weight")
        a = tensors.get(f"{stem}.lora_A.default.weight")
        b = tensors.get(f"{stem}.lora_B.default.weight")
        if name.endswith(".weight") and a is not None and b is not None:
            rank = a.shape[0]
            delta = (b.float() @ a.float()) * (min(rank, LORA_MAX_ALPHA) / rank)
            tensor = (tensor.float() + delta).to(tensor.dtype)
        merged[name] = tensor
    return merged
