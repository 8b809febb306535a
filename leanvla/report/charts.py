"""The charts of the reports, as inline SVG that follows the page's colours."""

from __future__ import annotations

import math
from html import escape
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

WIDTH = 980
LABEL = 190
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
    scale = (WIDTH - LABEL - 150) / (longest or 1.0)
    body = [_bar(bar, TOP + i * (BAR + GAP), scale, phases) for i, bar in enumerate(bars)]
    bottom = TOP + len(bars) * (BAR + GAP)
    axis = _axis(longest, scale, bottom)
    legend, height = _legend([*phases, "overhead"], bottom + 34)
    return _svg(height, [axis, *body, *legend], "query latency by phase")


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

    parts = [_level(f"{level:.0%}", y(level), left, width) for level in (0, 0.25, 0.5, 0.75, 1)]
    parts += [_text(x(keep), bottom + 18, f"{keep:g}", "middle", "soft") for keep in keeps]
    if dense:
        parts.append(_dense_band(dense, y, left, width))
    for number, points in enumerate(curves.values()):
        shift = (number - (len(curves) - 1) / 2) * 7  # side by side, so that no bar hides another
        parts.append(_curve([(x(p.keep) + shift, p) for p in points], y, _colour(number + 1)))
    legend, _ = _legend(list(curves), bottom + 40, first=1)
    parts += legend
    return _svg(height + 10, parts, "success against keep ratio", width)


def lines(curves: Mapping[str, Sequence[tuple[float, float]]], label: str) -> str:
    """Lines over one horizontal axis, both axes from zero; `label` says what is drawn."""
    points = [point for curve in curves.values() for point in curve]
    if not points:
        return ""
    width, left, top, bottom = 720, 52, 30, 230
    far, high = max(x for x, _ in points) or 1.0, max(y for _, y in points) or 1.0
    across, up = (width - left - 20) / far, (bottom - top) / high
    parts = [_text(left, top - 14, label, "start")]
    step = _round_step(high / 4)
    for tick in (i * step for i in range(int(high / step) + 1)):
        parts.append(_level(f"{tick:g}", bottom - tick * up, left, width))
    step = _round_step(far / 6)
    for tick in (i * step for i in range(int(far / step) + 1)):
        parts.append(_text(left + tick * across, bottom + 16, f"{tick:,.0f}", "middle", "soft"))
    for number, curve in enumerate(curves.values()):
        path = " ".join(f"{left + x * across:.1f},{bottom - y * up:.1f}" for x, y in curve)
        colour = _colour(number + 1)
        parts.append(
            f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.6"/>'
        )
    legend, height = _legend(list(curves), bottom + 40, first=1)
    return _svg(height, [*parts, *legend], label, width)


def _bar(bar: Bar, y: float, scale: float, phases: list[str]) -> str:
    parts, x = [_text(LABEL - 12, y + 13, bar.label, "end")], float(LABEL)
    rest = max(0.0, bar.total_ms - sum(ms for _, ms in bar.parts))
    for name, ms in (*bar.parts, ("overhead", rest)):
        number = phases.index(name) if name in phases else len(phases)
        parts.append(
            f'<rect x="{x:.1f}" y="{y}" width="{ms * scale:.2f}" height="{BAR}" '
            f'fill="{_colour(number)}"><title>{escape(name)} {ms:.2f} ms</title></rect>'
        )
        x += ms * scale
    note = f"{bar.total_ms:.1f} ms"
    if bar.ceiling_ms is not None:
        at = LABEL + bar.ceiling_ms * scale
        parts.append(
            f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{y - 4}" y2="{y + BAR + 4}" '
            'stroke="var(--ink)" stroke-width="2"/>'
        )
        note += f" (ceiling {bar.ceiling_ms:.1f})"
        x = max(x, at)
    return "".join([*parts, _text(x + 8, y + 13, note, "start", "soft")])


def _axis(longest: float, scale: float, bottom: float) -> str:
    step = _round_step(longest / 5)
    ticks = [i * step for i in range(int(longest / step) + 1)]
    lines = (
        f'<line x1="{LABEL + t * scale:.1f}" x2="{LABEL + t * scale:.1f}" y1="{TOP - 8}" '
        f'y2="{bottom}" stroke="var(--line)"/>'
        + _text(LABEL + t * scale, TOP - 13, f"{t:g} ms", "middle", "soft")
        for t in ticks
    )
    return "".join(lines)


def _round_step(rough: float) -> float:
    power = 10 ** math.floor(math.log10(rough or 1.0))
    return next(power * m for m in (1, 2, 5, 10) if power * m >= rough)


def _level(label: str, y: float, left: float, width: float) -> str:
    line = f'<line x1="{left}" x2="{width - 10}" y1="{y:.1f}" y2="{y:.1f}" stroke="var(--line)"/>'
    return line + _text(left - 8, y + 4, label, "end", "soft")


def _dense_band(dense: Point, y: Callable[[float], float], left: float, width: float) -> str:
    high, low, middle = y(dense.high), y(dense.low), y(dense.rate)
    return (
        f'<rect x="{left}" y="{high:.1f}" width="{width - left - 10}" height="{low - high:.1f}" '
        'fill="var(--c0)" opacity=".13"/>'
        f'<line x1="{left}" x2="{width - 10}" y1="{middle:.1f}" y2="{middle:.1f}" '
        'stroke="var(--c0)" stroke-dasharray="5 4"/>'
        + _text(width - 12, middle - 6, f"dense {dense.rate:.0%}", "end", "soft")
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


def _legend(names: Sequence[str], y: float, first: int = 0) -> tuple[list[str], float]:
    """Coloured names in a row, broken when full, and the height that the chart then has."""
    parts, x = [], 10.0
    for number, name in enumerate(names, first):
        if x + 40 + 7 * len(name) > 720:
            x, y = 10.0, y + 20
        parts.append(
            f'<rect x="{x}" y="{y - 9}" width="11" height="11" rx="2" fill="{_colour(number)}"/>'
            + _text(x + 17, y + 1, name, "start")
        )
        x += 40 + 7 * len(name)
    return parts, y + 14


def _colour(number: int) -> str:
    return f"var(--c{number % 9})"


def _text(x: float, y: float, text: str, anchor: str, kind: str = "") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" class="{kind}">{escape(text)}</text>'
    )


def _svg(height: float, parts: Sequence[str], label: str, width: int = WIDTH) -> str:
    return (
        f'<svg viewBox="0 0 {width} {height:.0f}" width="{width}" role="img" '
        f'aria-label="{escape(label)}">{"".join(parts)}</svg>'
    )
