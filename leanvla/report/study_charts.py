"""Charts of a report over runs: success against cost, and a heat map of cells and tasks."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, NamedTuple

from leanvla.report.svg import colour, legend, round_step, svg, text
from sim.analysis.cells import front

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

WIDTH, LEFT, TOP, BOTTOM = 720, 56, 18, 290
CELL_W, CELL_H, NAMES_W = 84, 24, 220


class Spot(NamedTuple):
    """One cell in a chart of success against cost."""

    method: str
    label: str
    cost: float
    rate: float
    low: float
    high: float


class Square(NamedTuple):
    """One square of a heat map; `rate` is None where nothing was judged."""

    rate: float | None
    words: str
    title: str


def pareto(spots: Sequence[Spot], unit: str, label: str) -> str:
    """Success with its interval against cost, and the line of those that none beats in both."""
    if len(spots) < 2:
        return ""
    most = max(spot.cost for spot in spots) * 1.04 or 1.0
    across, up = (WIDTH - LEFT - 24) / most, BOTTOM - TOP
    methods = list(dict.fromkeys(spot.method for spot in spots))

    def x(cost: float) -> float:
        return LEFT + cost * across

    def y(rate: float) -> float:
        return BOTTOM - rate * up

    parts = [_level(level, y(level)) for level in (0.0, 0.25, 0.5, 0.75, 1.0)]
    step = round_step(most / 6)
    for tick in range(int(most / step) + 1):
        parts.append(text(x(tick * step), BOTTOM + 17, f"{tick * step:g}", "middle", "soft"))
    parts.append(text(WIDTH - 12, BOTTOM + 34, unit, "end", "soft"))
    best = [spots[i] for i in front([(spot.cost, spot.rate) for spot in spots])]
    path = " ".join(f"{x(spot.cost):.1f},{y(spot.rate):.1f}" for spot in best)
    parts.append(
        f'<polyline points="{path}" fill="none" stroke="var(--ink)" stroke-dasharray="3 4" '
        'opacity=".6"/>'
    )
    for spot in spots:
        parts.append(_spot(spot, x(spot.cost), y, colour(methods.index(spot.method))))
    names, height = legend(methods, BOTTOM + 56)
    return svg(height, [*parts, *names], label, WIDTH)


def heat_map(columns: Sequence[str], rows: Mapping[str, Sequence[Square]], label: str) -> str:
    """One square per row and column, the greener the higher the rate."""
    if not rows or not columns:
        return ""
    width = NAMES_W + CELL_W * len(columns) + 10
    head = [
        text(NAMES_W + (i + 0.5) * CELL_W, 14, name, "middle", "soft")
        for i, name in enumerate(columns)
    ]
    body = []
    for line, (name, squares) in enumerate(rows.items()):
        y = 24 + line * CELL_H
        body.append(text(NAMES_W - 10, y + 16, name, "end"))
        body += [_square(square, NAMES_W + i * CELL_W, y) for i, square in enumerate(squares)]
    return svg(30 + CELL_H * len(rows), [*head, *body], label, width)


def _spot(spot: Spot, x: float, y: Callable[[float], float], shade: str) -> str:
    title = f"{spot.label}: {spot.rate:.1%} [{spot.low:.1%}, {spot.high:.1%}] at {spot.cost:.4g}"
    return (
        f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{y(spot.low):.1f}" y2="{y(spot.high):.1f}" '
        f'stroke="{shade}" opacity=".45" stroke-width="2"/>'
        f'<circle cx="{x:.1f}" cy="{y(spot.rate):.1f}" r="4.5" fill="{shade}">'
        f"<title>{escape(title)}</title></circle>"
    )


def _square(square: Square, x: float, y: float) -> str:
    strength = 0.0 if square.rate is None else 0.06 + 0.74 * square.rate
    return (
        f'<rect x="{x}" y="{y}" width="{CELL_W - 2}" height="{CELL_H - 2}" rx="3" '
        f'fill="var(--good)" fill-opacity="{strength:.2f}" stroke="var(--line)">'
        f"<title>{escape(square.title)}</title></rect>"
        + text(x + CELL_W / 2 - 1, y + 15, square.words, "middle")
    )


def _level(level: float, y: float) -> str:
    line = f'<line x1="{LEFT}" x2="{WIDTH - 10}" y1="{y}" y2="{y}" stroke="var(--line)"/>'
    return line + text(LEFT - 8, y + 4, f"{level:.0%}", "end", "soft")
