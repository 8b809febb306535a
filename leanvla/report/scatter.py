"""Dots over two axes with upright intervals, as inline SVG: what is given for what it costs."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, NamedTuple

from leanvla.report.svg import colour, legend, round_step, svg, text

if TYPE_CHECKING:
    from collections.abc import Sequence

WIDTH, LEFT, TOP, BOTTOM = 720, 52, 30, 290


class Dot(NamedTuple):
    """One result.

    Attributes:
        group: dots of a group share a colour.
        label: what it is, shown when pointed at.
        x: its cost.
        y: what it gives, 0 to 1.
        low: lower end of the interval of `y`.
        high: upper end.
    """

    group: str
    label: str
    x: float | None
    y: float
    low: float
    high: float


def scatter(dots: Sequence[Dot], across: str, up: str) -> str:
    """A picture of all dots that have a cost; costs begin at zero, shares at a round one."""
    shown = [dot for dot in dots if dot.x is not None]
    if not shown:
        return ""
    far = max(dot.x or 0.0 for dot in shown) * 1.08 or 1.0
    floor = max(0.0, int(min(dot.low for dot in shown) * 10) / 10)
    wide, tall = (WIDTH - LEFT - 20) / far, (BOTTOM - TOP) / max(1.0 - floor, 0.1)
    parts = [text(LEFT, TOP - 14, up, "start"), text(WIDTH - 10, BOTTOM + 34, across, "end")]
    parts += [_level(floor + 0.1 * i, BOTTOM - 0.1 * i * tall) for i in range(_levels(floor))]
    step = round_step(far / 6)
    ticks = [step * i for i in range(int(far / step) + 1)]
    parts += [text(LEFT + t * wide, BOTTOM + 16, f"{t:g}", "middle", "soft") for t in ticks]
    groups = list(dict.fromkeys(dot.group for dot in shown))
    for dot in shown:
        x = LEFT + (dot.x or 0.0) * wide
        y, top, bottom = (BOTTOM - (v - floor) * tall for v in (dot.y, dot.high, dot.low))
        parts.append(_mark(dot, x, (y, top, bottom), colour(groups.index(dot.group))))
    names, height = legend(groups, BOTTOM + 54)
    return svg(height, [*parts, *names], f"{up} against {across}", WIDTH)


def _levels(floor: float) -> int:
    return round((1.0 - floor) * 10) + 1


def _level(level: float, y: float) -> str:
    line = f'<line x1="{LEFT}" x2="{WIDTH - 10}" y1="{y:.1f}" y2="{y:.1f}" stroke="var(--line)"/>'
    return line + text(LEFT - 8, y + 4, f"{level:.0%}", "end", "soft")


def _mark(dot: Dot, x: float, ys: tuple[float, float, float], ink: str) -> str:
    y, top, bottom = ys
    told = f"{dot.label}: {dot.y:.1%} [{dot.low:.1%}, {dot.high:.1%}] at {dot.x:.4g}"
    return (
        f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{top:.1f}" y2="{bottom:.1f}" stroke="{ink}" '
        'opacity=".55" stroke-width="2"/>'
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="{ink}"><title>{escape(told)}</title>'
        "</circle>"
    )
