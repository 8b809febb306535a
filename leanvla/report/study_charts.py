"""Charts of a report over runs: success against cost, and a heat map of cells and tasks."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, NamedTuple

from leanvla.report.labels import LETTER, placed, shared_ends, wrap
from leanvla.report.svg import colour, legend, mark, round_step, svg, text
from sim.analysis.cells import front

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

WIDTH, LEFT, TOP, BOTTOM = 720, 56, 18, 290
CELL_W, CELL_H, LEAST_NAMES_W, LINE = 84, 24, 220, 12


class Spot(NamedTuple):
    """One cell in a chart of success against cost; `rung` is what is written beside its mark."""

    method: str
    label: str
    rung: str
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
        parts.append(_spot(spot, x(spot.cost), y, methods.index(spot.method)))
    places = placed([(x(s.cost), y(s.rate)) for s in spots], [s.rung for s in spots], LEFT, WIDTH)
    for spot, place in zip(spots, places, strict=True):
        parts.append(text(place.x, place.y, spot.rung, place.anchor, "soft"))
    names, height = legend(methods, BOTTOM + 56, marks=True)
    return svg(height, [*parts, *names], label, WIDTH)


def heat_map(columns: Sequence[str], rows: Mapping[str, Sequence[Square]], label: str) -> str:
    """One square per row and column, the greener the higher the rate.

    What all columns' names share is said once above them; a head is never wider than its column.
    """
    if not rows or not columns:
        return ""
    left = max(LEAST_NAMES_W, 16 + 7 * max(map(len, rows)))
    front, back = shared_ends(columns)
    heads = [wrap(name[len(front) : len(name) - len(back)], CELL_W - 2) for name in columns]
    above = LINE + 4 if front or back else 0
    top = above + LINE * max(map(len, heads)) + 8
    body = [text(10, LINE, f"{front} … {back}", "start", "soft")] if above else []
    for i, (name, lines) in enumerate(zip(columns, heads, strict=True)):
        body.append(_head(name, lines, left + (i + 0.5) * CELL_W - 1, top - 8))
    for line, (name, squares) in enumerate(rows.items()):
        y = top + line * CELL_H
        body.append(text(left - 10, y + 16, name, "end"))
        body += [_square(square, left + i * CELL_W, y) for i, square in enumerate(squares)]
    width = left + max(CELL_W * len(columns), LETTER * len(front + back) - left) + 10
    return svg(top + 6 + CELL_H * len(rows), body, label, round(width))


def _head(name: str, lines: Sequence[str], x: float, bottom: float) -> str:
    words = (
        text(x, bottom - LINE * (len(lines) - 1 - i), line, "middle", "soft")
        for i, line in enumerate(lines)
    )
    return f"<g><title>{escape(name)}</title>{''.join(words)}</g>"


def _spot(spot: Spot, x: float, y: Callable[[float], float], number: int) -> str:
    title = f"{spot.label}: {spot.rate:.1%} [{spot.low:.1%}, {spot.high:.1%}] at {spot.cost:.4g}"
    return (
        f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{y(spot.low):.1f}" y2="{y(spot.high):.1f}" '
        f'stroke="{colour(number)}" opacity=".45" stroke-width="2"/>'
        + mark(number, x, y(spot.rate), title)
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
