"""The ViT towers that published checkpoints name, by their timm ids.

timm itself is not needed at run time: these few numbers are all that a checkpoint leaves to it.
CLIP and ImageNet-1k towers (another norm, another GELU, a position for the class token) are not
among them; no OpenVLA checkpoint uses one.
"""

from __future__ import annotations

from dataclasses import replace

from policy.openvla.config import TowerConfig

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

_DINO_L = "vit_large_patch14_reg4_dinov2.lvd142m"
_SIGLIP_SO = "vit_so400m_patch14_siglip_224"
_SIGLIP_SO_384 = "vit_so400m_patch14_siglip_384"
_SIGLIP_B = "vit_base_patch16_siglip_224"


def _siglip(timm_id: str, size: int) -> TowerConfig:
    return TowerConfig(timm_id, size, 14, 1152, 27, 16, 4304, attn_pool=True)


TOWERS = {
    tower.timm_id: tower
    for tower in (
        TowerConfig(
            _DINO_L,
            image_size=518,
            patch_size=14,
            width=1024,
            depth=24,
            heads=16,
            mlp_width=4096,
            class_token=True,
            registers=4,
            layer_scale=True,
            mean=IMAGENET_MEAN,
            std=IMAGENET_STD,
        ),
        _siglip(_SIGLIP_SO, 224),
        _siglip(_SIGLIP_SO_384, 384),
        TowerConfig(_SIGLIP_B, 224, 16, 768, 12, 12, 3072, attn_pool=True),
    )
}

# vision_backbone_id -> towers and image side, for configs that leave `timm_model_ids` out
BACKBONES = {
    "dinosiglip-vit-so-224px": ((_DINO_L, _SIGLIP_SO), 224),
    "dinosiglip-vit-so-384px": ((_DINO_L, _SIGLIP_SO_384), 384),
    "dinov2-vit-l": ((_DINO_L,), 224),
    "siglip-vit-so400m": ((_SIGLIP_SO,), 224),
    "siglip-vit-so400m-384px": ((_SIGLIP_SO_384,), 384),
    "siglip-vit-b16-224px": ((_SIGLIP_B,), 224),
}


def tower(timm_id: str, image_size: int) -> TowerConfig:
    """The tower of a timm id at an image side in pixels.

    Raises:
        KeyError: when the id is none of `TOWERS`.
    """
    return replace(TOWERS[timm_id], image_size=image_size)


def backbone_id(towers: tuple[TowerConfig, ...]) -> str:
    """The published `vision_backbone_id` of these towers, `leanvla-vit` for towers of our own."""
    ids, size = tuple(t.timm_id for t in towers), towers[0].image_size
    for name, known in BACKBONES.items():
        if known == (ids, size):
            return name
    return "leanvla-vit"
