"""The small policies that ship: architecture, recipes, and how trained weights become a folder."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file

from policy.openvla.checkpoint import save_checkpoint
from policy.openvla.config import OpenVLAConfig, TextConfig, TowerConfig
from policy.openvla.layout import expected_shapes
from policy.openvla.mini_tokenizer import ACTION_VOCAB, EMPTY_TOKEN_ID, PAD_MULTIPLE
from policy.training.recipe import Recipe, Stage

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from policy.types import ActionSpec, ObservationSpec

TOWER = TowerConfig(
    "vit_mini_patch8_96", 96, 8, width=128, depth=4, heads=2, mlp_width=512, film=True
)
TEXT = TextConfig(ACTION_VOCAB + PAD_MULTIPLE, 128, 256, 6, 2, 2)

COARSE = Stage(100_000, 32, patch=16, pool=1, learning_rate=1e-3)
POOLED = Stage(60_000, 32, patch=8, pool=2, learning_rate=1e-3)
DRIVER = Stage(16_000, 32, patch=8, pool=1, learning_rate=8e-4)
FULL = Stage(72_000, 32, patch=8, pool=1, learning_rate=8e-4, final=0.75)

AR_POOLED = replace(POOLED, samples=32_000, learning_rate=8e-4)
AR_DRIVER = replace(DRIVER, samples=24_000)
AR_FULL = replace(FULL, samples=48_000)

EXECUTE = 4
"""Of eight predicted actions four are executed: the whole chunk open loop succeeds far less."""

WEIGHTS = (1.0, 1.0, 1.0, 0.25, 0.25, 0.25, 1.0)
"""The rotation only holds the gripper upright: small commands, mostly noise in the label."""


def weights_of(dof: int) -> tuple[float, ...]:
    """`WEIGHTS` for another number of values: three translations, rotations, the gripper last."""
    return WEIGHTS if dof == len(WEIGHTS) else (1.0, 1.0, 1.0, *[0.25] * (dof - 4), 1.0)


SUITE_STAGES = (
    replace(COARSE, samples=60_000),
    replace(POOLED, samples=40_000),
    replace(DRIVER, samples=8_000),
)
"""Other cameras, other objects, the same arm: what a picture shows is learnt anew where that is
cheapest, sixteen-pixel patches at a third of the price; how to move is there already."""

SUITE_CORRECTED = (replace(POOLED, samples=16_000), replace(FULL, samples=44_000))

RECIPES = {
    "mini": Recipe("mini", (COARSE, POOLED, DRIVER), action_weights=WEIGHTS),
    "mini-suite": Recipe("mini-suite", SUITE_STAGES, action_weights=WEIGHTS),
    "mini-ar": Recipe("mini-ar", (AR_POOLED, AR_DRIVER), action_weights=WEIGHTS),
}
"""Until the policy can drive: most of the learning happens where it is cheap. `mini-ar` goes on
from `mini`, whose shapes it shares to the last tensor: it learns to read from left to right.
`mini-suite` goes on from `mini` on another suite; by the speeds of `mini`, an hour of two cores.
"""

CORRECTED = {
    "mini": Recipe("corrected", (replace(POOLED, samples=40_000), FULL), action_weights=WEIGHTS),
    "mini-suite": Recipe("corrected", SUITE_CORRECTED, action_weights=WEIGHTS),
    "mini-ar": Recipe(
        "corrected", (replace(AR_POOLED, samples=16_000), AR_FULL), action_weights=WEIGHTS
    ),
}
"""What follows each round of corrections."""

CORRECTION_WEIGHT = 3.0
"""A corrected step is drawn this often for one draw of a demonstrated step."""


def mini_config(
    recipe: str, dataset: str, stats: dict[str, Any], seen: ObservationSpec, acts: ActionSpec
) -> OpenVLAConfig:
    """Architecture of `mini` (parallel chunks of 8) or `mini-ar` (one action, token by token).

    `mini-ar` reads proprioception and two cameras as `mini` does, and has FiLM; OpenVLA itself, the
    model of its decoding, has one camera and neither.
    """
    causal = recipe == "mini-ar"
    return OpenVLAConfig(
        (TOWER,),
        TEXT,
        pad_to_multiple_of=PAD_MULTIPLE,
        decoding="autoregressive" if causal else "parallel",
        chunk=1 if causal else acts.horizon,
        dof=acts.dof,
        views=seen.views,
        proprio_dim=len(seen.state_names),
        norm_stats={dataset: stats},
        arch="leanvla-mini",
        rate_hz=acts.rate_hz,
        empty_token_id=EMPTY_TOKEN_ID,
        state_names=seen.state_names,
        action_names=acts.names,
        rotation=acts.rotation,
        gripper=acts.gripper,
        cut_layer=2,
        execute=1 if causal else EXECUTE,
    )


def policy_tensors(weights: dict[str, Tensor], config: OpenVLAConfig) -> dict[str, Tensor]:
    """The network of a training checkpoint, without its training heads.

    Raises:
        ValueError: when the weights do not have the shapes of `config`.
    """
    prefix = "model."
    tensors = {k[len(prefix) :]: v for k, v in weights.items() if k.startswith(prefix)}
    shapes = expected_shapes(config)
    for name, shape in shapes.items():
        if name not in tensors or tuple(tensors[name].shape) != tuple(shape):
            raise ValueError(f"{name}: trained weights do not fit the architecture {shape}")
    return {name: tensors[name] for name in shapes}


def save_policy(weights: Path, config: OpenVLAConfig, folder: Path, tokenizer: Path) -> None:
    """Write trained weights as a checkpoint folder in the published layout, with `SHA256` sums.

    Args:
        weights: `weights.safetensors` of a training run.
        config: the policy's architecture.
        folder: where to write.
        tokenizer: folder that holds the tokenizer's files.
    """
    tensors = policy_tensors(load_file(weights), config)
    tensors = {name: value.to(torch.float32) for name, value in tensors.items()}
    names = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
    save_checkpoint(folder, config, tensors, [tokenizer / name for name in names])
    lines = [f"{sha256(path.read_bytes()).hexdigest()}  {path.name}" for path in _hashed(folder)]
    (folder / "SHA256").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _hashed(folder: Path) -> list[Path]:
    return sorted([*folder.glob("*.safetensors"), *folder.glob("*.json")])
