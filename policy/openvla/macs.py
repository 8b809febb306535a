"""Multiply-accumulate counts of one query, and from them what pruning can save at most.

Decoder layers are counted as in the pruning papers (arXiv 2511.16449): `4nd² + 2n²d + 3ndm` for `n`
tokens of width `d` and an MLP of width `m`. Unlike the papers' column the whole query is counted:
vision, projector, prefill below and above the cut, decode, head.

MACs are an upper bound of the speed-up where compute limits; small batches on fast devices are
limited by reading weights, which pruning does not save.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pruning.macs import layer_macs

if TYPE_CHECKING:
    from policy.openvla.config import OpenVLAConfig, TextConfig, TowerConfig

PROMPT_TOKENS = 20
"""BOS and prompt of a typical instruction."""


@dataclass(frozen=True)
class QueryMacs:
    """MACs of one query by phase.

    Attributes:
        vision: towers and projector, all views.
        prefill_below: full decoder layers below the cut.
        prefill_above: decoder layers above it, on the tokens that live.
        decode: action tokens after the first one (autoregressive only).
        head: output head, and L1 head where there is one.
    """

    vision: int
    prefill_below: int
    prefill_above: int
    decode: int
    head: int

    @property
    def total(self) -> int:
        """The whole query."""
        return self.vision + self.prefill_below + self.prefill_above + self.decode + self.head


def prefill_macs(text: TextConfig, cut: int, full: int, short: int) -> int:
    """The papers' count: `cut` layers on `full` tokens, the others on `short`; nothing else."""
    d, m = text.hidden_size, text.intermediate_size
    above = text.num_hidden_layers - cut
    return cut * layer_macs(full, d, m) + above * layer_macs(short, d, m)


def query_macs(
    config: OpenVLAConfig, *, cut: int, kept_per_view: int, prompt_tokens: int = PROMPT_TOKENS
) -> QueryMacs:
    """Count one query.

    Args:
        config: the architecture.
        cut: full decoder layers.
        kept_per_view: visual tokens of each view that live above the cut.
        prompt_tokens: BOS and prompt.
    """
    text, views = config.text, len(config.views)
    other = prompt_tokens + (1 if config.proprio_dim else 0)
    if config.decoding == "parallel":
        other += config.chunk * config.dof + 1  # placeholders and the stop token
    full = views * config.tokens_per_view + other
    return _count(config, cut, text.num_hidden_layers - cut, full, views * kept_per_view + other)


def measured_macs(
    config: OpenVLAConfig, *, sequence: int, kept_sequence: int, layer_mean: float
) -> int:
    """Count one query from the lengths that it reported, wherever its cuts were.

    A query is taken for one with a single cut of the same mean length. That is exact for methods
    that cut once; for several cuts the part that grows with the length is exact, and the small
    quadratic part is not. Choosing the tokens is not counted.

    Args:
        config: the architecture.
        sequence: length of the prefill before the first cut.
        kept_sequence: length behind the last cut.
        layer_mean: mean length over the decoder's layers.
    """
    layers = config.text.num_hidden_layers
    dropped = sequence - kept_sequence
    share = (layer_mean - kept_sequence) / dropped if dropped > 0 else 1.0
    below = layers * min(max(share, 0.0), 1.0)  # records round the mean
    return _count(config, below, layers - below, sequence, kept_sequence).total


def most_speedup(config: OpenVLAConfig, cut: int) -> float:
    """Dense over pruned MACs when no visual token at all lived above the cut."""
    dense = query_macs(config, cut=cut, kept_per_view=config.tokens_per_view)
    return dense.total / query_macs(config, cut=cut, kept_per_view=0).total


def _count(config: OpenVLAConfig, below: float, above: float, full: int, short: int) -> QueryMacs:
    """One query with `below` layers on `full` tokens and `above` layers on `short` ones."""
    text, d = config.text, config.text.hidden_size
    parallel = config.decoding == "parallel"
    actions = config.chunk * config.dof if parallel else 1
    head = 0 if config.head == "l1" else actions * d * text.vocab_size
    return QueryMacs(
        vision=len(config.views) * _vision(config),
        prefill_below=round(below * _layer(text, full, full)),
        prefill_above=round(above * _layer(text, short, short)),
        decode=0 if parallel else _decode(config, round(below), full, short),
        head=head + (_l1_head(d, config.chunk, config.dof) if config.head == "l1" else 0),
    )


def _layer(text: TextConfig, queries: int, keys: int) -> int:
    """A decoder layer, with grouped keys and values where the decoder has them."""
    d, m = text.hidden_size, text.intermediate_size
    kv = text.num_key_value_heads * text.head_dim
    return queries * (2 * d * d + 2 * d * kv + 3 * d * m) + 2 * queries * keys * d


def _decode(config: OpenVLAConfig, cut: int, full: int, short: int) -> int:
    """The action tokens after the first, one by one on the cache; lower layers' cache is full."""
    text = config.text
    above = text.num_hidden_layers - cut
    total = 0
    for step in range(1, config.dof):
        total += cut * _layer(text, 1, full + step) + above * _layer(text, 1, short + step)
        total += text.hidden_size * text.vocab_size
    return total


def _vision(config: OpenVLAConfig) -> int:
    """Towers up to their second-to-last block, and the projector, of one view."""
    n, v, d = config.tokens_per_view, config.vision_width, config.text.hidden_size
    projector = v * 4 * v + 4 * v * d + d * d if config.fused else v * d + d * d
    return sum(_tower(tower, d) for tower in config.towers) + n * projector


def _tower(tower: TowerConfig, text_width: int) -> int:
    n = tower.tokens + tower.registers + int(tower.class_token)
    w = tower.width
    block = n * (4 * w * w + 2 * w * tower.mlp_width) + 2 * n * n * w
    film = 2 * text_width * w if tower.film else 0
    return tower.tokens * 3 * tower.patch_size**2 * w + (tower.depth - 1) * (block + film)


def _l1_head(width: int, chunk: int, dof: int) -> int:
    return chunk * (dof * width * width + 2 * width * width + width * dof)
