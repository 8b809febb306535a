"""Frames of a video file at evenly spaced times, through PyAV."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vlm.errors import MissingDataError, TaskError
from vlm.media import spread

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from PIL.Image import Image

# A gap up to which decoding on is cheaper than seeking to the key frame before the next time.
_SEEK_FROM_S = 2.0


@dataclass(frozen=True)
class Video:
    """Part of a video file.

    Attributes:
        path: the file.
        frames: how many frames are taken.
        start_s: where the part that is meant begins.
        end_s: where it ends; None for the end of the file.
    """

    path: Path
    frames: int
    start_s: float = 0.0
    end_s: float | None = None

    @property
    def count(self) -> int:
        """Frames that are taken at most."""
        return self.frames

    def load(self) -> list[Image]:
        """Decode the frames that are shown at evenly spaced times."""
        return sample_video(self.path, self.frames, self.start_s, self.end_s)


def sample_video(
    path: Path, frames: int, start_s: float = 0.0, end_s: float | None = None
) -> list[Image]:
    """Frames shown at evenly spaced times; a shorter video than asked for gives fewer.

    Raises:
        MissingDataError: when the file is not there, or PyAV is not installed.
        TaskError: when it is no video.
    """
    av = _library()
    if not path.exists():
        raise MissingDataError(f"{path} is missing: put the video there")
    try:
        with av.open(str(path)) as container:
            length_s = duration_s(container)
            until_s = length_s if end_s is None else min(end_s, length_s)
            times_s = spread(min(start_s, until_s), until_s, frames)
            shown = [frame.to_image().convert("RGB") for frame in _frames_at(container, times_s)]
    except (av.FFmpegError, IndexError):
        raise TaskError(f"{path} is no video that can be read: get the file again") from None
    if not shown:
        raise TaskError(f"{path} holds no frame: get the file again")
    return shown


def duration_s(container: Any) -> float:
    """Length of an open video, from its stream or its container."""
    stream = container.streams.video[0]
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    return float(container.duration or 0) / 1e6


def _frames_at(container: Any, times_s: Sequence[float]) -> Iterator[Any]:
    """The frame shown at every time, without repetition; times ascend."""
    stream = container.streams.video[0]
    stream.thread_type = "AUTO"
    base, first_s = stream.time_base, float((stream.start_time or 0) * stream.time_base)
    frames: Iterator[Any] = iter(())
    shown: Any = None
    ahead: Any = None
    given: Any = None
    for time_s in times_s:
        gap_s = time_s - (-1e9 if ahead is None else ahead.time - first_s)
        if gap_s > _SEEK_FROM_S:
            container.seek(int((time_s + first_s) / base), stream=stream)
            frames, shown, ahead = container.decode(stream), None, None
        while ahead is None or ahead.time - first_s <= time_s:
            following = next(frames, None)
            if following is None:
                break
            shown, ahead = ahead, following
            if shown is None:
                shown = following
        last = ahead if ahead is not None and ahead.time - first_s <= time_s else shown
        if last is not None and (given is None or last.pts != given.pts):
            given = last
            yield last


def _library() -> Any:
    try:
        import av
    except ImportError:
        raise MissingDataError("videos need PyAV: pip install av") from None
    return av
