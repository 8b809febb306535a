"""Charts of a replay: recorded and said actions over time, one panel per value."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from jaxtyping import Float

WIDTH, LEFT, TOP, BOTTOM = 720, 64, 24, 128
MOST_POINTS = 900  # a line of more has several points in one pixel


def action_panels(
    curves: Mapping[str, Float[np.ndarray, "rows dof"]],
    names: Sequence[str],
    rate_hz: float,
    colours: Mapping[str, int],
) -> str:
    """One panel per value: a line per curve, broken where a curve has no value.

    Args:
        curves: rows by name; the recording first, so that it lies below.
        names: one per column.
        rate_hz: rows per second.
        colours: number of each curve's colour.
    """
    panels = [
        _panel({who: rows[:, j] for who, rows in curves.items()}, name, rate_hz, colours)
        for j, name in enumerate(names)
    ]
    return _legend(curves, colours) + "".join(panels)


def _panel(
    curves: Mapping[str, np.ndarray], name: str, rate_hz: float, colours: Mapping[str, int]
) -> str:
    finite = [values[np.isfinite(values)] for values in curves.values()]
    shown = np.concatenate(finite) if finite else np.zeros(0)
    rows = max((len(values) for values in curves.values()), default=0)
    if not shown.size or not rows:
        return ""
    low, high = float(shown.min()), float(shown.max())
    if high - low < 1e-9:
        low, high = low - 0.5, high + 0.5
    up, across = (BOTTOM - TOP) / (high - low), (WIDTH - LEFT - 12) / max(1, rows - 1)
    parts = [f'<text x="{LEFT}" y="14">{escape(name)}</text>']
    for level in (low, (low + high) / 2, high):
        parts.append(_level(level, BOTTOM - (level - low) * up))
    for second in _ticks((rows - 1) / rate_hz):
        x = LEFT + second * rate_hz * across
        parts.append(f'<text x="{x:.1f}" y="{BOTTOM + 16}" class="soft">{second:g} s</text>')
    for who, values in curves.items():
        for places, heights in _pieces(values):
            path = " ".join(
                f"{LEFT + a * across:.1f},{BOTTOM - (b - low) * up:.1f}"
                for a, b in zip(places, heights, strict=True)
            )
            width = 2.4 if colours[who] == 0 else 1.3
            parts.append(
                f'<polyline points="{path}" fill="none" stroke="var(--c{colours[who] % 9})" '
                f'stroke-width="{width}"><title>{escape(who)}</title></polyline>'
            )
    return (
        f'<svg viewBox="0 0 {WIDTH} {BOTTOM + 24}" width="{WIDTH}" role="img" '
        f'aria-label="{escape(name)}">{"".join(parts)}</svg>'
    )


def _pieces(values: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Stretches of finite values, thinned to what can be seen."""
    places = np.flatnonzero(np.isfinite(values))
    if not places.size:
        return []
    stretches = np.split(places, np.flatnonzero(np.diff(places) > 1) + 1)
    step = max(1, len(values) // MOST_POINTS)
    return [(stretch[::step], values[stretch[::step]]) for stretch in stretches]


def _level(value: float, y: float) -> str:
    line = f'<line x1="{LEFT}" x2="{WIDTH - 12}" y1="{y:.1f}" y2="{y:.1f}" stroke="var(--line)"/>'
    text = f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end" class="soft">{value:.3g}</text>'
    return line + text


def _ticks(seconds: float) -> list[float]:
    step = next((s for s in (0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300) if seconds / s <= 8), 600)
    return [i * step for i in range(int(seconds / step) + 1)]


def _legend(curves: Mapping[str, object], colours: Mapping[str, int]) -> str:
    marks = (
        f'<span><svg width="12" height="12" style="display:inline-block">'
        f'<rect width="12" height="12" rx="2" fill="var(--c{colours[who] % 9})"/></svg> '
        f"{escape(who)}</span>"
        for who in curves
    )
    return f'<div class="row">{"".join(marks)}</div>'
