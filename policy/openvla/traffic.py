"""What each stage of a query must compute and move at least: multiply-accumulates and bytes.

Bytes are a lower bound on purpose: every weight that a stage uses is read once, its inputs and
outputs pass once, keys and values of an autoregressive decode are written once and read at every
step. What a kernel spills on the way is its own affair.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from engines.profile.roofline import Stage
from policy.openvla.layout import TOWER_PREFIXES, expected_shapes
from policy.openvla.macs import PROMPT_TOKENS, query_macs

if TYPE_CHECKING:
    from collections.abc import Iterable

    from policy.openvla.config import OpenVLAConfig

BYTES_OF = {"float32": 4.0, "bfloat16": 2.0, "float16": 2.0, "int8": 1.0, "float8": 1.0}


@dataclass(frozen=True)
class Cut:
    """Where tokens leave and how many stay.

    Attributes:
        layers: full decoder layers.
        kept_per_view: visual tokens of each view that live above them.
        prompt_tokens: BOS and prompt.
    """

    layers: int
    kept_per_view: int
    prompt_tokens: int = PROMPT_TOKENS


def query_stages(
    config: OpenVLAConfig, cut: Cut, *, weight_type: str = "float16", data_type: str = "float16"
) -> list[Stage]:
    """The stages of one query, in order.

    Args:
        config: the architecture.
        cut: where tokens leave and how many stay.
        weight_type: how weights are stored, a key of `BYTES_OF`.
        data_type: how activations, keys and values are stored.
    """
    macs = query_macs(
        config, cut=cut.layers, kept_per_view=cut.kept_per_view, prompt_tokens=cut.prompt_tokens
    )
    weights = {name: count * BYTES_OF[weight_type] for name, count in _weights(config).items()}
    data = {name: count * BYTES_OF[data_type] for name, count in _values(config, cut).items()}
    above = config.text.num_hidden_layers - cut.layers
    steps = _steps(config)
    one_pass = weights["layer"] * config.text.num_hidden_layers + weights["head"]
    return [
        Stage("vision", macs.vision, weights["vision"], data["vision"]),
        Stage("prefill_below", macs.prefill_below, cut.layers * weights["layer"], data["below"]),
        Stage("prefill_above", macs.prefill_above, above * weights["layer"], data["above"]),
        Stage("decode", macs.decode, steps * one_pass, data["decode"]),
        Stage("head", macs.head, weights["head"], data["head"]),
    ]


def weight_bytes(config: OpenVLAConfig, kind: str) -> int:
    """All parameters of the checkpoint, those included that never run."""
    return int(BYTES_OF[kind] * sum(map(math.prod, expected_shapes(config).values())))


def cache_bytes(config: OpenVLAConfig, cut: Cut, kind: str) -> int:
    """Keys and values at the end of an autoregressive query; none for parallel chunks."""
    if config.decoding == "parallel":
        return 0
    full, short = _lengths(config, cut)
    above = config.text.num_hidden_layers - cut.layers
    tokens = cut.layers * full + above * short + config.text.num_hidden_layers * _steps(config)
    return int(BYTES_OF[kind] * tokens * _kv_width(config))


def _steps(config: OpenVLAConfig) -> int:
    """Forward passes after the first action token."""
    return 0 if config.decoding == "parallel" else config.dof - 1


def _kv_width(config: OpenVLAConfig) -> int:
    return 2 * config.text.num_key_value_heads * config.text.head_dim


def _lengths(config: OpenVLAConfig, cut: Cut) -> tuple[int, int]:
    """Sequence below and above the cut."""
    other = cut.prompt_tokens + (1 if config.proprio_dim else 0)
    if config.decoding == "parallel":
        other += config.chunk * config.dof + 1
    views = len(config.views)
    return views * config.tokens_per_view + other, views * cut.kept_per_view + other


def _weights(config: OpenVLAConfig) -> dict[str, int]:
    """Parameters that a stage reads."""
    shapes = expected_shapes(config)
    last = [
        re.compile(rf"{re.escape(prefix)}\.(blocks\.{tower.depth - 1}|norm|attn_pool)\.")
        for prefix, tower in zip(TOWER_PREFIXES, config.towers, strict=False)
    ]
    seen = ("vision_backbone.", "projector.", "proprio_projector.")
    head = "action_head." if config.head == "l1" else "language_model.lm_head."

    def count(keys: Iterable[str]) -> int:
        return sum(math.prod(shapes[key]) for key in keys)

    return {
        "vision": count(
            k for k in shapes if k.startswith(seen) and not any(p.match(k) for p in last)
        ),
        "layer": count(k for k in shapes if k.startswith("language_model.model.layers.0.")),
        "head": count(k for k in shapes if k.startswith(head)),
    }


def _values(config: OpenVLAConfig, cut: Cut) -> dict[str, int]:
    """Numbers that must pass a stage's borders."""
    full, short = _lengths(config, cut)
    width, views = config.text.hidden_size, len(config.views)
    above = config.text.num_hidden_layers - cut.layers
    causal = config.decoding == "autoregressive"
    kv = _kv_width(config) if causal else 0
    pixels = 3 * len(config.towers) * views * config.towers[0].image_size ** 2
    cached = cut.layers * full + above * short
    rows = 1 if causal else config.chunk * config.dof
    out = rows * config.text.vocab_size if config.head == "discrete" else config.chunk * config.dof
    return {
        "vision": pixels + views * config.tokens_per_view * width,
        "below": 2 * full * width + cut.layers * full * kv,
        "above": (short + rows) * width + above * short * kv,
        "decode": _steps(config) * (cached * kv + 2 * width),
        "head": rows * width + out,
    }
