"""Words in narrow places: what all names share is said once, the rest is broken or moved aside."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

# Width of a letter of the small type, px: rather too wide than too narrow.
LETTER = 6.3
_LINE = 12


class Place(NamedTuple):
    """Where a label stands: its SVG anchor point, and the box that it fills."""

    x: float
    y: float
    anchor: str
    left: float
    top: float
    right: float
    bottom: float


def shared_ends(names: Sequence[str]) -> tuple[str, str]:
    """The whole words that all names begin with, and those that all end with.

    Every name keeps at least a word of its own; a single name is all its own.

    Example:
        `("pick_up_the_", "_and_place_it")` for `pick_up_the_milk_and_place_it` and
        `pick_up_the_soup_and_place_it`.
    """
    words = [re.findall(r"[^_\s/-]*[_\s/-]*", name)[:-1] for name in names]
    if len(words) < 2:
        return "", ""
    most = min(map(len, words)) - 1
    front = _alike(words, most)
    back = _alike([line[::-1] for line in words], most - front)
    head = "".join(words[0][:front])
    tail = "".join(words[0][len(words[0]) - back :])
    if not back:
        return head, ""
    own = words[0][len(words[0]) - back - 1]
    joined = own[len(own.rstrip("_-/ ")) :] + tail
    return head, joined if all(name.endswith(joined) for name in names) else tail


def wrap(label: str, width: float) -> list[str]:
    """A label in lines of at most `width` pixels, broken behind its words where it can be."""
    most = max(1, int(width / LETTER))
    lines = [""]
    for word in re.findall(r"[^_\s/-]+[_\s/-]*|[_\s/-]+", label):
        for piece in (word[i : i + most] for i in range(0, len(word), most)):
            if len(lines[-1] + piece.rstrip()) > most:
                lines.append("")
            lines[-1] += piece
    return [line.strip() for line in lines]


def placed(
    points: Sequence[tuple[float, float]], labels: Sequence[str], left: float, right: float
) -> list[Place]:
    """A place for every point's label: beside it, and off the other points and labels if there is.

    Args:
        points: where the marks are, px.
        labels: one per point.
        left: where the chart begins.
        right: where it ends.
    """
    marks = [Place(x, y, "", x - 5, y - 5, x + 5, y + 5) for x, y in points]
    done: list[Place] = []
    for (x, y), label in zip(points, labels, strict=True):
        options = [
            place
            for place in _around(x, y, LETTER * len(label))
            if left <= place.left and place.right <= right
        ]
        done.append(min(options, key=lambda place: _collisions(place, [*marks, *done])))
    return done


def _alike(words: Sequence[Sequence[str]], most: int) -> int:
    """How many words from the front are the same in all lines, `most` at most."""
    count = 0
    while count < most and len({line[count] for line in words}) == 1:
        count += 1
    return count


def _around(x: float, y: float, width: float) -> list[Place]:
    found = []
    for down in (4, -8, 16, -20, 28, -32, 40, -44, 52):
        for anchor, start in (("start", x + 8), ("end", x - 8 - width)):
            at = start if anchor == "start" else x - 8
            box = (start, y + down - _LINE + 2, start + width, y + down + 2)
            found.append(Place(at, y + down, anchor, *box))
    return found


def _collisions(place: Place, others: Sequence[Place]) -> int:
    return sum(
        place.left < other.right
        and other.left < place.right
        and place.top < other.bottom
        and other.top < place.bottom
        for other in others
    )
