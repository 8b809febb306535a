"""Pictures of an episode: kept tokens drawn on the frames, a caption below, an MP4 of it all."""

from __future__ import annotations

import math
import os
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from jaxtyping import Int64, UInt8

    from sim.rollout.types import Frame, Recording

    Image = UInt8[np.ndarray, "h w 3"]

EDGE_RGB = (255, 196, 61)
PRUNED_LIGHT = 0.3
CAPTION_PX = 44
INK, PAPER, PALE = (236, 236, 236), (24, 26, 29), (150, 154, 160)


class VideoError(RuntimeError):
    """No video can be written here: says what to install."""


def draw_kept(image: Image, kept: Int64[np.ndarray, " k"], tokens: int) -> Image:
    """Dim the patches that were pruned and outline those that live.

    Args:
        image: a frame of the view.
        kept: indices of the kept tokens, row by row from the top left.
        tokens: tokens of the view; they must form a square, otherwise there is no patch to draw
            and the frame comes back as it is. So it does when everything is kept.
    """
    side = math.isqrt(tokens)
    if not tokens or side * side != tokens or len(kept) in (0, tokens):
        return image
    grid = np.zeros(tokens, bool)
    grid[kept] = True
    rows, columns = (np.arange(length) * side // length for length in image.shape[:2])
    lives = grid.reshape(side, side)[np.ix_(rows, columns)]
    grey = image.mean(axis=2, keepdims=True) * PRUNED_LIGHT
    drawn = np.where(lives[..., None], image, grey).astype(np.uint8)
    drawn[_edges(lives)] = EDGE_RGB
    return drawn


def compose(recording: Recording, frame: Frame) -> Image:
    """All views of one moment side by side, kept tokens drawn, without a caption."""
    kept = frame.kept or ((),) * len(frame.images)
    return np.hstack(
        [
            draw_kept(image, np.asarray(tokens, np.int64), recording.view_tokens)
            for image, tokens in zip(frame.images, kept, strict=True)
        ]
    )


def captioned(recording: Recording) -> Iterable[Image]:
    """Every frame of a recording, composed, with the instruction and the facts below."""
    record = recording.record
    facts = f"{record.cell} · seed {record.seed} · {record.outcome}"
    for frame in recording.frames:
        picture = compose(recording, frame)
        strip = _caption(
            record.spoken or record.instruction, f"{facts} · step {frame.step}", picture.shape[1]
        )
        yield np.vstack([picture, strip])


def write_mp4(path: Path, frames: Iterable[Image], frames_per_s: float) -> None:
    """Write H.264 that every browser plays; the file appears whole or not at all.

    Raises:
        VideoError: when PyAV is not installed.
    """
    try:
        import av
    except ImportError:
        raise VideoError("videos need PyAV: pip install av, or run with --video 0") from None
    part = path.with_name(f".{path.name}.part")
    rate = Fraction(frames_per_s).limit_denominator(1000)
    with av.open(str(part), "w", format="mp4", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("libx264", rate=rate, options={"crf": "24"})
        stream.pix_fmt, stream.thread_count = "yuv420p", 1
        for number, picture in enumerate(frames):
            height, width = (length // 2 * 2 for length in picture.shape[:2])
            if number == 0:
                stream.height, stream.width = height, width
            even = np.ascontiguousarray(picture[:height, :width])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(even, format="rgb24")))
        container.mux(stream.encode())
    os.replace(part, path)


def moments(frames: Sequence[Frame], count: int) -> list[Frame]:
    """`count` frames spread over an episode, beginning with the first that a query acted on."""
    acted = [frame for frame in frames if frame.kept] or list(frames)
    places = np.linspace(0, len(acted) - 1, min(count, len(acted)))
    return [acted[round(place)] for place in places]


def _edges(lives: np.ndarray) -> np.ndarray:
    """Pixels of living patches that touch a pruned one."""
    padded = np.pad(lives, 1, mode="edge")
    around = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return lives & ~around


def _caption(instruction: str, facts: str, width: int) -> Image:
    from PIL import Image as Pillow
    from PIL import ImageDraw, ImageFont

    strip = Pillow.new("RGB", (width, CAPTION_PX), PAPER)
    draw = ImageDraw.Draw(strip)
    draw.text((8, 4), instruction, INK, ImageFont.load_default(size=15))
    draw.text((8, 25), facts, PALE, ImageFont.load_default(size=12))
    return np.asarray(strip)
