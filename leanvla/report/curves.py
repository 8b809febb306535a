"""Lines over one horizontal axis, as inline SVG: losses, or anything else that is sampled."""

from __future__ import annotations

from typing import TYPE_CHECKING

from leanvla.report.svg import colour, legend, round_step, svg, text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

WIDTH, LEFT, TOP, BOTTOM = 720, 52, 30, 230


def curves(named: Mapping[str, Sequence[tuple[float, float]]], label: str) -> str:
    """One line per name, both axes from zero; `label` says what is drawn."""
    points = [point for curve in named.values() for point in curve]
    if not points:
        return ""
    far, high = max(x for x, _ in points) or 1.0, max(y for _, y in points) or 1.0
    across, up = (WIDTH - LEFT - 20) / far, (BOTTOM - TOP) / high
    parts = [text(LEFT, TOP - 14, label, "start")]
    for tick in _ticks(high, 4):
        y = f"{BOTTOM - tick * up:.1f}"
        parts.append(
            f'<line x1="{LEFT}" x2="{WIDTH - 10}" y1="{y}" y2="{y}" stroke="var(--line)"/>'
        )
        parts.append(text(LEFT - 8, BOTTOM - tick * up + 4, f"{tick:g}", "end", "soft"))
    for tick in _ticks(far, 6):
        parts.append(text(LEFT + tick * across, BOTTOM + 16, f"{tick:,.0f}", "middle", "soft"))
    for number, curve in enumerate(named.values(), 1):
        path = " ".join(f"{LEFT + x * across:.1f},{BOTTOM - y * up:.1f}" for x, y in curve)
        style = f'fill="none" stroke="{colour(number)}" stroke-width="1.6"'
        parts.append(f'<polyline points="{path}" {style}/>')
        if len(curve) == 1:  # a line of one point is not seen
            x, y = path.split(",")
            parts.append(f'<circle cx="{x}" cy="{y}" r="3.5" fill="{colour(number)}"/>')
    names, height = legend(list(named), BOTTOM + 40, first=1)
    return svg(height, [*parts, *names], label, WIDTH)


def _ticks(most: float, about: int) -> list[float]:
    step = round_step(most / about)
    return [step * i for i in range(int(most / step) + 1)]
