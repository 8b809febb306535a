"""Recorded episodes as files: film strips of kept tokens, videos, a rerun recording."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from leanvla.report.rollout import Picture
from sim.video import captioned, compose, moments, write_mp4

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from jaxtyping import UInt8
    from numpy import ndarray

    from sim.rollout.types import Recording

MOMENTS = 4
EMBED_LIMIT = 4_000_000  # bytes of video in a report; further ones are files beside it


def film_strips(recordings: Iterable[Recording]) -> list[Picture]:
    """A few moments of each recording with its kept tokens drawn."""
    return [
        Picture(
            _caption(film),
            tuple(
                (f"step {frame.step}", png(compose(film, frame)))
                for frame in moments(film.frames, MOMENTS)
            ),
        )
        for film in recordings
    ]


def write_videos(folder: Path, recordings: Iterable[Recording]) -> list[Picture]:
    """Write every recording as `videos/<cell>-seed<n>-<outcome>.mp4`.

    Returns:
        The videos for a report, until they would make it heavy.

    Raises:
        VideoError: when PyAV is not installed.
    """
    (folder / "videos").mkdir(exist_ok=True)
    pictures, room = [], EMBED_LIMIT
    for film in recordings:
        record = film.record
        cell = str(record.cell).replace(" @ ", "-keep")
        path = folder / "videos" / f"{cell}-seed{record.seed}-{record.outcome}.mp4"
        write_mp4(path, captioned(film), film.frames_per_s)
        room -= path.stat().st_size
        if room >= 0:
            pictures.append(Picture(_caption(film), ((path.name, path.read_bytes()),)))
    return pictures


def _caption(film: Recording) -> str:
    record = film.record
    text = f"{record.cell}, seed {record.seed}: “{record.spoken or record.instruction}”"
    return f"{text}, {record.outcome} after {record.steps} steps"


def png(picture: UInt8[ndarray, "h w 3"]) -> bytes:
    """A PNG of 128 colours: a third of the size, and no eye sees it at this scale."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(picture).quantize(128).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
