"""What charts are drawn from: words, colours of the page, legends, round axis steps."""

from __future__ import annotations

import math
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

WIDTH = 980
_SHAPES = (
    tuple((4.8 * math.cos(i * math.pi / 12), 4.8 * math.sin(i * math.pi / 12)) for i in range(24)),
    ((-4.3, -4.3), (4.3, -4.3), (4.3, 4.3), (-4.3, 4.3)),
    ((0, -5.6), (5.4, 4.2), (-5.4, 4.2)),
    ((0, -6), (6, 0), (0, 6), (-6, 0)),
    ((0, 5.6), (5.4, -4.2), (-5.4, -4.2)),
    ((-5.4, -1.6), (5.4, -1.6), (5.4, 1.6), (-5.4, 1.6)),
    ((-1.6, -5.4), (1.6, -5.4), (1.6, 5.4), (-1.6, 5.4)),
)


def round_step(rough: float) -> float:
    """The smallest of 1, 2, 5 times a power of ten that is not below `rough`."""
    power = 10 ** math.floor(math.log10(rough or 1.0))
    return next(power * m for m in (1, 2, 5, 10) if power * m >= rough)


def legend(
    names: Sequence[str], y: float, first: int = 0, *, marks: bool = False
) -> tuple[list[str], float]:
    """Names in a row behind their colour, or their mark, and the height that the chart then has."""
    parts, x = [], 10.0
    for number, name in enumerate(names, first):
        if x + 40 + 7 * len(name) > 720:
            x, y = 10.0, y + 20
        patch = f'<rect x="{x}" y="{y - 9}" width="11" height="11" rx="2" fill="{colour(number)}"/>'
        shown = mark(number, x + 5.5, y - 3.5) if marks else patch
        parts.append(shown + text(x + 17, y + 1, name, "start"))
        x += 40 + 7 * len(name)
    return parts, y + 14


def mark(number: int, x: float, y: float, title: str = "") -> str:
    """A mark whose shape tells it from others where colours do not, as in print."""
    points = " ".join(f"{x + dx:.1f},{y + dy:.1f}" for dx, dy in _SHAPES[number % len(_SHAPES)])
    told = f"<title>{escape(title)}</title>"
    return f'<polygon points="{points}" fill="{colour(number)}">{told}</polygon>'


def colour(number: int) -> str:
    """A colour of the page, again from the first after the ninth."""
    return f"var(--c{number % 9})"


def text(x: float, y: float, words: str, anchor: str, kind: str = "") -> str:
    """Words at a place; `anchor` is SVG's `start`, `middle` or `end`."""
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" class="{kind}"'
    return f"<text {place}>{escape(words)}</text>"


def svg(height: float, parts: Sequence[str], label: str, width: int = WIDTH) -> str:
    """A picture of its parts, with a label for those who cannot see it.

    On a narrow screen it is scrolled, not shrunk until nobody can read it.
    """
    return (
        f'<div class="scroll"><svg viewBox="0 0 {width} {height:.0f}" width="{width}" role="img" '
        f'aria-label="{escape(label)}">{"".join(parts)}</svg></div>'
    )
