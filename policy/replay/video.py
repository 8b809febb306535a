"""Frames of a video file by number, decoded in order: a walk forwards decodes each once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from policy.replay.types import DamagedError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import numpy as np
    from jaxtyping import UInt8

TOLERANCE = 0.5  # of a frame's duration


class VideoFrames:
    """The frames of one stretch of a video.

    Args:
        path: the file.
        begin_s: time of the first frame within the file.
        count: frames of the stretch.
        fps: frames per second.

    Raises:
        DamagedError: when the file is missing, or no video.
    """

    def __init__(self, path: Path, begin_s: float, count: int, fps: float) -> None:
        if not path.is_file():
            raise DamagedError(f"{path}: video is missing; fetch the data set again")
        self.path, self.begin_s, self.count, self.fps = path, begin_s, count, fps
        self._frames: Iterator[tuple[int, Any]] = iter(())
        self._at: tuple[int, Any] | None = None

    def check(self) -> None:
        """Refuse a stretch that has fewer frames than it should, without decoding a pixel.

        Raises:
            DamagedError: with both counts.
        """
        slack = TOLERANCE / self.fps
        end_s = self.begin_s + self.count / self.fps
        with _open(self.path) as container:
            self._seek(container)
            times = list(_times(self.path, container, end_s))
        have = sum(self.begin_s - slack <= t < end_s - slack for t in times)
        if have != self.count:
            raise DamagedError(
                f"{self.path}: frame count mismatch: {have} frames from {self.begin_s:g} s on, "
                f"the episode has {self.count} rows; fetch the data set again"
            )

    def __getitem__(self, number: int) -> UInt8[np.ndarray, "h w 3"]:
        """Frame `number` as RGB.

        Raises:
            DamagedError: when it is not there, or cannot be decoded.
        """
        if self._at is None or number < self._at[0]:
            self._frames, self._at = self._decode(), None
        while self._at is None or self._at[0] < number:
            self._at = next(self._frames, None)
            if self._at is None:
                raise DamagedError(f"{self.path}: frame {number} of {self.count} is missing")
        if self._at[0] != number:
            raise DamagedError(f"{self.path}: no frame at row {number} of the episode")
        return self._at[1].to_ndarray(format="rgb24")

    def _seek(self, container: Any) -> None:
        stream = container.streams.video[0]
        if self.begin_s > 0:
            container.seek(int(self.begin_s / stream.time_base), stream=stream)

    def _decode(self) -> Iterator[tuple[int, Any]]:
        import av

        with _open(self.path) as container:
            self._seek(container)
            try:
                for frame in container.decode(video=0):
                    number = round((frame.time - self.begin_s) * self.fps)
                    if 0 <= number < self.count:
                        yield number, frame
                    elif number >= self.count:
                        return
            except av.FFmpegError as error:
                raise DamagedError(f"{self.path}: cannot be decoded ({error})") from None


def _times(path: Path, container: Any, end_s: float) -> Iterator[float]:
    """Presentation times of the frames from here to `end_s`, seconds."""
    import av

    try:
        for packet in container.demux(video=0):
            if packet.pts is None or not packet.size:
                continue
            if packet.dts is not None and float(packet.dts * packet.time_base) > end_s:
                return
            yield float(packet.pts * packet.time_base)
    except av.FFmpegError as error:
        raise DamagedError(f"{path}: cannot be read to its end ({error})") from None


def _open(path: Path) -> Any:
    import av

    try:
        container = av.open(str(path))
    except av.FFmpegError as error:
        raise DamagedError(f"{path}: not a readable video ({error})") from None
    if not container.streams.video:
        container.close()
        raise DamagedError(f"{path}: holds no video stream")
    return container
