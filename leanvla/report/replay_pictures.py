"""Pictures of a replay: which tokens each cell kept, and where two cells differ."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from leanvla.report.pictures import png
from leanvla.report.rollout import Picture
from sim.video import draw_kept

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaxtyping import Int64, UInt8

    from leanvla.commands.replay_play import Played

    Image = UInt8[np.ndarray, "h w 3"]

LEAST_PX = 240
ONLY_ONE, ONLY_OTHER, BOTH = (66, 135, 245), (245, 150, 40), (120, 200, 120)
TINT = 0.55


def overlays(played: Played, most: int = 4) -> list[Picture]:
    """A few looks with the kept tokens of every pruned cell."""
    stills = played.stills.kept[:most]
    pictures = []
    for cell, trace in zip(played.cells, played.traces, strict=True):
        if not cell.pruned or not stills:
            continue
        files = []
        for query, look in stills:
            views = [
                draw_kept(_enlarged(image), kept, played.view_tokens)
                for image, kept in zip(look.images, trace.kept(query), strict=True)
            ]
            files.append((f"query {query}", png(_row(views))))
        pictures.append(Picture(str(cell), tuple(files)))
    return pictures


def differences(played: Played, most: int = 4) -> Picture | None:
    """Where the kept sets of two pruned cells differ, on the same looks; None without a pair."""
    pair = _pair(played)
    if pair is None:
        return None
    one, other = (played.traces[number] for number in pair)
    files = []
    for query, look in played.stills.kept[:most]:
        views = [
            draw_difference(_enlarged(image), a, b, played.view_tokens)
            for image, a, b in zip(look.images, one.kept(query), other.kept(query), strict=True)
        ]
        files.append((f"query {query}", png(_row(views))))
    caption = f"blue: only {one.name}; orange: only {other.name}; green: both; dim: neither"
    return Picture(caption, tuple(files))


def draw_difference(
    image: Image, one: Int64[np.ndarray, " k"], other: Int64[np.ndarray, " k"], tokens: int
) -> Image:
    """Tint the patches that one, the other, or both kept, and dim the rest.

    Args:
        image: a frame of the view.
        one, other: kept tokens, row by row from the top left.
        tokens: tokens of the view; they must form a square, or the frame comes back as it is.
    """
    side = math.isqrt(tokens)
    if not tokens or side * side != tokens:
        return image
    kind = np.zeros(tokens, np.int64)
    kind[one] += 1
    kind[other] += 2
    rows, columns = (np.arange(length) * side // length for length in image.shape[:2])
    patch = kind.reshape(side, side)[np.ix_(rows, columns)]
    drawn = image.astype(np.float64) * np.where(patch == 0, 0.3, 1.0)[..., None]
    for number, colour in ((1, ONLY_ONE), (2, ONLY_OTHER), (3, BOTH)):
        drawn[patch == number] = drawn[patch == number] * (1 - TINT) + np.array(colour) * TINT
    return drawn.astype(np.uint8)


def _pair(played: Played) -> tuple[int, int] | None:
    """Two pruned cells of different methods at one keep ratio; else any two."""
    pruned = [number for number, cell in enumerate(played.cells) if cell.pruned]
    pairs = [(a, b) for i, a in enumerate(pruned) for b in pruned[i + 1 :]]
    same = [(a, b) for a, b in pairs if played.cells[a].keep == played.cells[b].keep]
    return next(iter(same or pairs), None)


def _enlarged(image: Image) -> Image:
    """Small pictures larger by a whole factor, so that patches can be told apart."""
    factor = -(-LEAST_PX // max(image.shape[:2]))
    return image if factor <= 1 else image.repeat(factor, 0).repeat(factor, 1)


def _row(views: Sequence[Image]) -> Image:
    height = max(view.shape[0] for view in views)
    padded = [np.pad(v, ((0, height - v.shape[0]), (0, 0), (0, 0))) for v in views]
    return np.hstack(padded)
