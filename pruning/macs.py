"""Multiply-accumulates of a decoder, as the pruning papers count them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


def layer_macs(tokens: int, width: int, mlp_width: int) -> int:
    """One decoder layer on `tokens` tokens, `4nd² + 2n²d + 3ndm` (arXiv 2511.16449)."""
    n, d, m = tokens, width, mlp_width
    return 4 * n * d * d + 2 * n * n * d + 3 * n * d * m


def prefill_macs(layer_tokens: Iterable[int], width: int, mlp_width: int) -> int:
    """All layers of a prefill, each on its own number of tokens; no tower, no head, no decode."""
    return sum(layer_macs(tokens, width, mlp_width) for tokens in layer_tokens)
