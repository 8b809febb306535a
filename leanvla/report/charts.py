"""The two charts of a rollout report, as inline SVG that follows the page's colours."""

from __future__ import annotations

import math
from html import escape
from typing import TYPE_CHECKING, NamedTuple

from leanvla.report.svg import WIDTH, colour, legend, round_step, svg, text

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

LEAST_LABEL, LETTER = 120, 6.8
BAR, GAP, TOP = 17, 9, 26


class Bar(NamedTuple):
    """One stacked latency bar.

    Attributes:
        parts: (phase, ms) from left to right.
        total_ms: median of the whole query; what the parts leave is drawn as overhead.
        ceiling_ms: the shortest query that pruning could give at this keep; None when unknown.
    """

    label: str
    parts: Sequence[tuple[str, float]]
    total_ms: float
    ceiling_ms: float | None


class Point(NamedTuple):
    """One measured success rate: keep ratio, rate, and its interval."""

    keep: float
    rate: float
    low: float
    high: float


def latency_bars(bars: Sequence[Bar]) -> str:
    """Stacked horizontal bars in milliseconds with a tick where the ceiling lies."""
    if not bars:
        return ""
    phases = list(dict.fromkeys(name for bar in bars for name, _ in bar.parts))
    longest = max(max(bar.total_ms, sum(ms for _, ms in bar.parts)) for bar in bars)
    left = max(LEAST_LABEL, 16 + LETTER * max(len(bar.label) for bar in bars))
    scale = (WIDTH - left - 150) / (longest or 1.0)
    body = [_bar(bar, left, TOP + i * (BAR + GAP), scale, phases) for i, bar in enumerate(bars)]
    bottom = TOP + len(bars) * (BAR + GAP)
    axis = _axis(longest, left, scale, bottom)
    names, height = legend([*phases, "overhead"], bottom + 34)
    return svg(height, [axis, *body, *names], "query latency by phase")


def success_curves(curves: Mapping[str, Sequence[Point]], dense: Point | None) -> str:
    """Success rate against keep ratio, one line per method, with interval bars and a dense band."""
    if not any(curves.values()):
        return ""
    keeps = sorted({1.0, *(point.keep for points in curves.values() for point in points)})
    width, height, left, top, bottom = 720, 320, 52, 14, 270
    inner = width - left - 40

    def x(keep: float) -> float:
        octaves = math.log2(keeps[0]) or -1.0
        return left + 20 + (1.0 - math.log2(keep) / octaves) * inner

    def y(rate: float) -> float:
        return bottom - rate * (bottom - top)

    parts = [_level(level, y(level), left, width) for level in (0.0, 0.25, 0.5, 0.75, 1.0)]
    parts += [text(x(keep), bottom + 18, f"{keep:g}", "middle", "soft") for keep in keeps]
    if dense:
        parts.append(_dense_band(dense, y, left, width))
    for number, points in enumerate(curves.values()):
        shift = (number - (len(curves) - 1) / 2) * 7  # side by side, so that no bar hides another
        parts.append(_curve([(x(p.keep) + shift, p) for p in points], y, colour(number + 1)))
    names, _ = legend(list(curves), bottom + 40, first=1)
    parts += names
    return svg(height + 10, parts, "success against keep ratio", width)


def _bar(bar: Bar, left: float, y: float, scale: float, phases: list[str]) -> str:
    parts, x = [text(left - 12, y + 13, bar.label, "end")], left
    rest = max(0.0, bar.total_ms - sum(ms for _, ms in bar.parts))
    for name, ms in (*bar.parts, ("overhead", rest)):
        number = phases.index(name) if name in phases else len(phases)
        parts.append(
            f'<rect x="{x:.1f}" y="{y}" width="{ms * scale:.2f}" height="{BAR}" '
            f'fill="{colour(number)}"><title>{escape(name)} {ms:.2f} ms</title></rect>'
        )
        x += ms * scale
    note = f"{bar.total_ms:.1f} ms"
    if bar.ceiling_ms is not None:
        at = left + bar.ceiling_ms * scale
        parts.append(
            f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{y - 4}" y2="{y + BAR + 4}" '
            'stroke="var(--ink)" stroke-width="2"/>'
        )
        note += f" (ceiling {bar.ceiling_ms:.1f})"
        x = max(x, at)
    return "".join([*parts, text(x + 8, y + 13, note, "start", "soft")])


def _axis(longest: float, left: float, scale: float, bottom: float) -> str:
    step = round_step(longest / 5)
    ticks = [i * step for i in range(int(longest / step) + 1)]
    lines = (
        f'<line x1="{left + t * scale:.1f}" x2="{left + t * scale:.1f}" y1="{TOP - 8}" '
        f'y2="{bottom}" stroke="var(--line)"/>'
        + text(left + t * scale, TOP - 13, f"{t:g} ms", "middle", "soft")
        for t in ticks
    )
    return "".join(lines)


def _level(level: float, y: float, left: float, width: float) -> str:
    line = f'<line x1="{left}" x2="{width - 10}" y1="{y}" y2="{y}" stroke="var(--line)"/>'
    return line + text(left - 8, y + 4, f"{level:.0%}", "end", "soft")


def _dense_band(dense: Point, y: Callable[[float], float], left: float, width: float) -> str:
    high, low, middle = y(dense.high), y(dense.low), y(dense.rate)
    return (
        f'<rect x="{left}" y="{high:.1f}" width="{width - left - 10}" height="{low - high:.1f}" '
        'fill="var(--c0)" opacity=".13"/>'
        f'<line x1="{left}" x2="{width - 10}" y1="{middle:.1f}" y2="{middle:.1f}" '
        'stroke="var(--c0)" stroke-dasharray="5 4"/>'
        + text(width - 12, middle - 6, f"dense {dense.rate:.0%}", "end", "soft")
    )


def _curve(points: Sequence[tuple[float, Point]], y: Callable[[float], float], colour: str) -> str:
    points = sorted(points, key=lambda pair: pair[0])
    path = " ".join(f"{x:.1f},{y(p.rate):.1f}" for x, p in points)
    parts = [f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.8"/>']
    for x, p in points:
        parts.append(
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{y(p.low):.1f}" y2="{y(p.high):.1f}" '
            f'stroke="{colour}" opacity=".55" stroke-width="2"/>'
            f'<circle cx="{x:.1f}" cy="{y(p.rate):.1f}" r="4" fill="{colour}">'
            f"<title>keep {p.keep:g}: {p.rate:.1%} [{p.low:.1%}, {p.high:.1%}]</title></circle>"
        )
    return "".join(parts)
