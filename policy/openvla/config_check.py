"""Values of a config that contradict each other, found before any weight is read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from policy.openvla.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from policy.openvla.config import OpenVLAConfig, TowerConfig


def check_config(config: OpenVLAConfig, path: Path) -> None:
    """Refuse an impossible architecture.

    Raises:
        CheckpointError: with the first contradiction, naming the file and the keys.
    """
    for problem in _problems(config):
        raise CheckpointError(f"{path}: {problem}")


def _problems(config: OpenVLAConfig) -> Iterator[str]:
    yield from _vision(config)
    yield from _text(config)
    yield from _actions(config)


def _vision(config: OpenVLAConfig) -> Iterator[str]:
    if not 1 <= len(config.towers) <= 2:
        yield f"towers: {len(config.towers)} given, one or two are possible"
        return
    for tower in config.towers:
        yield from _tower(tower)
    counts = [tower.tokens for tower in config.towers]
    if len(set(counts)) > 1:
        yield f"towers: fused towers give {counts} tokens, they must give equally many"
    sizes = [tower.image_size for tower in config.towers]
    if len(set(sizes)) > 1:
        yield f"towers: fused towers read images of {sizes} pixels, they share one `pixel_values`"


def _tower(tower: TowerConfig) -> Iterator[str]:
    name = f"tower {tower.timm_id!r}"
    if min(tower.image_size, tower.patch_size, tower.width, tower.heads, tower.mlp_width) < 1:
        yield f"{name}: sizes must be positive"
    elif tower.width % tower.heads:
        yield f"{name}: width {tower.width} does not split into {tower.heads} heads"
    elif tower.grid < 1:
        yield f"{name}: image_size {tower.image_size} is below patch_size {tower.patch_size}"
    if tower.depth < 2:
        yield f"{name}: depth {tower.depth}: the output of the second-to-last block is read"
    if tower.registers < 0:
        yield f"{name}: registers {tower.registers} is negative"
    if min(tower.std) <= 0:
        yield f"{name}: std {tower.std} must be positive"


def _text(config: OpenVLAConfig) -> Iterator[str]:
    text = config.text
    for name in ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers"):
        if getattr(text, name) < 1:
            yield f"text_config.{name} must be positive"
    if text.num_attention_heads < 1 or text.hidden_size % text.num_attention_heads:
        yield (
            f"text_config: hidden_size {text.hidden_size} does not split into "
            f"{text.num_attention_heads} heads"
        )
    elif text.head_dim % 2:
        yield f"text_config: head width {text.head_dim} is odd, rotary phases need pairs"
    kv = text.num_key_value_heads
    if kv < 1 or text.num_attention_heads % kv:
        yield f"text_config: {text.num_attention_heads} heads do not share {kv} key-value heads"
    if not 2 <= config.n_action_bins <= config.action_vocab:
        yield f"n_action_bins {config.n_action_bins} does not fit {config.action_vocab} ids"
    cut = config.cut_layer
    if cut is not None and not 1 <= cut < text.num_hidden_layers:
        yield f"cut_layer {cut} must lie in 1 ... {text.num_hidden_layers - 1}"
    empty = config.empty_token_id
    if empty is not None and not 0 <= empty < text.vocab_size:
        yield f"empty_token_id {empty} is outside the vocabulary of {text.vocab_size}"


def _actions(config: OpenVLAConfig) -> Iterator[str]:
    if config.dof < 1 or config.chunk < 1 or config.proprio_dim < 0:
        yield "dof and chunk must be at least 1, proprio_dim at least 0"
    if not config.views:
        yield "views is empty: name at least the main camera"
    if config.decoding == "autoregressive":
        if config.head != "discrete":
            yield f"head {config.head!r} needs decoding 'parallel'"
        if config.chunk != 1:
            yield f"chunk {config.chunk} needs decoding 'parallel'"
    if config.execute is not None and not 1 <= config.execute <= config.chunk:
        yield f"execute {config.execute} must lie in 1 ... {config.chunk} (the chunk)"
    if config.rate_hz <= 0:
        yield f"rate_hz {config.rate_hz} must be positive"
    if config.action_names and len(config.action_names) != config.dof:
        yield f"action_names has {len(config.action_names)} entries for {config.dof} dof"
    if config.state_names and len(config.state_names) != config.proprio_dim:
        yield f"state_names has {len(config.state_names)} entries for {config.proprio_dim} values"
