"""Architectures of the family by name, without a checkpoint: for timing what nobody has at hand.

Time depends on shapes and not on what the weights hold, so random weights measure an architecture
as well as trained ones. Actions that come out mean nothing.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from policy.openvla.config import OpenVLAConfig, TextConfig, load_config
from policy.openvla.errors import PolicyNameError
from policy.openvla.platforms import PLATFORMS, Platform
from policy.openvla.towers import BACKBONES, tower
from pruning.spelling import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Mapping

    from policy.openvla.config import TowerConfig

PUBLISHED_BACKBONE = "dinosiglip-vit-so-224px"
LLAMA_2_7B = TextConfig(
    vocab_size=32064,
    hidden_size=4096,
    intermediate_size=11008,
    num_hidden_layers=32,
    num_attention_heads=32,
    num_key_value_heads=32,
)
LLAMA_2_EMPTY = 29871
DATASET = "random_weights"
_SMALL_TEXT = TextConfig(32064, 768, 2048, 12, 12, 12)


def shape_names() -> list[str]:
    """Every name that `shape` knows."""
    return [*_SHAPES, "mini"]


def shape(name: str, layers: int | None = None, tower_layers: int | None = None) -> OpenVLAConfig:
    """The architecture of a name, as published or with fewer layers.

    Args:
        name: see `shape_names`.
        layers: decoder layers to keep, all when left out.
        tower_layers: blocks of each vision tower to keep, all when left out.

    Raises:
        PolicyNameError: for an unknown name, with the known ones and the nearest.
        ValueError: for a number of layers that the architecture does not have.
    """
    if name == "mini":
        from policy.registry import ZOO

        config = load_config(ZOO / "mini")
    elif name in _SHAPES:
        config = _SHAPES[name]
    else:
        hint = did_you_mean(name, shape_names())
        raise PolicyNameError(
            f"unknown shape {name!r}: choose one of {', '.join(shape_names())}{hint}"
        )
    return _shortened(config, layers, tower_layers)


def _shortened(
    config: OpenVLAConfig, layers: int | None, tower_layers: int | None
) -> OpenVLAConfig:
    full = config.text.num_hidden_layers
    if layers is not None:
        if not 3 <= layers <= full:
            raise ValueError(f"--layers is {layers}: this decoder can have 3 to {full}")
        # A cut that the checkpoint fixed for its whole depth means nothing in a shorter decoder.
        cut = config.cut_layer if layers == full else None
        text = replace(config.text, num_hidden_layers=layers)
        config = replace(config, text=text, cut_layer=cut)
    if tower_layers is not None:
        most = min(each.depth for each in config.towers)
        if not 2 <= tower_layers <= most:
            raise ValueError(f"--tower-layers is {tower_layers}: these towers can have 2 to {most}")
        towers = tuple(replace(each, depth=tower_layers) for each in config.towers)
        config = replace(config, towers=towers)
    return config


def _published_towers(*, film: bool = False) -> tuple[TowerConfig, ...]:
    ids, size = BACKBONES[PUBLISHED_BACKBONE]
    return tuple(replace(tower(timm_id, size), film=film) for timm_id in ids)


def _statistics(dof: int, proprio: int) -> dict[str, Mapping[str, object]]:
    """Made-up ranges; a policy refuses the ones that change nothing."""

    def bounds(n: int) -> dict[str, list[float]]:
        low, high = [-0.5] * n, [0.5] * n
        return {"q01": low, "q99": high, "min": low, "max": high}

    stats: dict[str, Mapping[str, object]] = {"action": {**bounds(dof), "mask": [True] * dof}}
    return stats | ({"proprio": bounds(proprio)} if proprio else {})


def _openvla() -> OpenVLAConfig:
    return OpenVLAConfig(
        _published_towers(),
        LLAMA_2_7B,
        norm_stats={DATASET: _statistics(7, 0)},
        arch="openvla-7b",
        centre_crop=True,
        eval_resize=True,
        empty_token_id=LLAMA_2_EMPTY,
        action_names=tuple(f"a{i}" for i in range(7)),
    )


def _oft(platform: Platform, arch: str, *, film: bool) -> OpenVLAConfig:
    dof, proprio = len(platform.action_names), len(platform.state_names)
    return replace(
        _openvla(),
        towers=_published_towers(film=film),
        decoding="parallel",
        head="l1",
        chunk=platform.chunk,
        dof=dof,
        views=platform.views,
        proprio_dim=proprio,
        norm_stats={DATASET: _statistics(dof, proprio)},
        arch=arch,
        rate_hz=platform.rate_hz,
        bounds=platform.bounds,
        state_names=platform.state_names,
        action_names=platform.action_names,
        rotation=platform.rotation,
    )


def _shapes() -> dict[str, OpenVLAConfig]:
    libero, aloha = (next(p for p in PLATFORMS if p.name == n) for n in ("libero", "aloha"))
    oft = _oft(libero, "openvla-oft-7b", film=False)
    small = replace(
        oft,
        towers=tuple(replace(t, width=384, depth=12, heads=6, mlp_width=1536) for t in oft.towers),
        text=_SMALL_TEXT,
        arch="oft-small",
    )
    return {
        "openvla-7b": _openvla(),
        "openvla-oft-7b": oft,
        "openvla-oft-aloha-7b": _oft(aloha, "openvla-oft-aloha-7b", film=True),
        # No published model: the sequence of OpenVLA-OFT at widths that a processor can run.
        "oft-small": small,
    }


_SHAPES = _shapes()
