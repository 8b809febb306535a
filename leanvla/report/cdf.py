"""How latencies spread: one cumulative curve per cell, as inline SVG."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from leanvla.report.svg import colour, legend, round_step, svg, text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

WIDTH, HEIGHT, LEFT, TOP, BOTTOM = 720, 330, 52, 14, 270
CUTOFF = 99.5
"""The axis ends at this percentile of the slowest cell; one outlier must not flatten the rest."""


def latency_cdf(cells: Mapping[str, Sequence[float]]) -> str:
    """Share of queries that were answered within a time, ms."""
    if not any(len(values) for values in cells.values()):
        return ""
    longest = max(float(np.percentile(values, CUTOFF)) for values in cells.values())
    shortest = min(min(values) for values in cells.values())
    step = round_step((longest - shortest) / 6 or longest / 6)
    start = step * int(shortest / step)
    scale = (WIDTH - LEFT - 30) / ((longest - start) * 1.04 or 1.0)

    def x(ms: float) -> float:
        return LEFT + (min(ms, longest * 1.02) - start) * scale

    def y(share: float) -> float:
        return BOTTOM - share * (BOTTOM - TOP)

    parts = [_level(level, y(level)) for level in (0.0, 0.5, 0.95, 1.0)]
    tick = start
    while tick <= longest:
        parts.append(text(x(tick), BOTTOM + 18, f"{tick:g} ms", "middle", "soft"))
        tick += step
    for number, values in enumerate(cells.values()):
        ordered = sorted(values)
        points = [(x(ms), y((i + 1) / len(ordered))) for i, ms in enumerate(ordered)]
        path = _stairs([(x(ordered[0]), y(0.0)), *points])
        parts.append(f'<path d="{path}" fill="none" stroke="{colour(number)}" stroke-width="1.8"/>')
    names, height = legend(list(cells), BOTTOM + 44)
    return svg(max(height, HEIGHT), [*parts, *names], "share of queries within a time", WIDTH)


def _stairs(points: Sequence[tuple[float, float]]) -> str:
    """A right-continuous step curve."""
    first, *rest = points
    return f"M{first[0]:.1f},{first[1]:.1f}" + "".join(f"H{x:.1f}V{y:.1f}" for x, y in rest)


def _level(share: float, y: float) -> str:
    line = f'<line x1="{LEFT}" x2="{WIDTH - 10}" y1="{y:.1f}" y2="{y:.1f}" stroke="var(--line)"/>'
    return line + text(LEFT - 8, y + 4, f"{share:.0%}", "end", "soft")
