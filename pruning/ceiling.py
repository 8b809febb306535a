"""How much dropping tokens can speed a query up at most, from where the dense query's time goes."""

from __future__ import annotations


def speedup_ceiling(query_ms: float, above_ms: float, kept_share: float) -> float:
    """Best speed-up that dropping tokens behind the cut can give (Amdahl).

    Only the layers above the cut see fewer tokens. Preprocessing, vision, the layers below the cut,
    action decoding, heads and overhead stay, and so do the non-visual tokens above the cut:

        ceiling = T / (T - T_above * (1 - s_kept / s_all))

    The cost above the cut is taken as linear in the sequence; attention itself is quadratic, so a
    long sequence may come out a little better than this. A method with cuts of its own is put in
    with all layers for T_above, and for s_kept with their mean length.

    Args:
        query_ms: dense query, T.
        above_ms: time of the layers above the cut in the dense query, T_above.
        kept_share: length of the sequence behind the cut over its full length, text included.
    """
    return query_ms / (query_ms - above_ms * (1.0 - kept_share))
