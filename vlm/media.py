"""Where pictures come from: files, text of a table, videos and folders of frames."""

from __future__ import annotations

import base64
import binascii
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vlm.errors import MissingDataError, TaskError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from PIL.Image import Image


@dataclass(frozen=True)
class Pictures:
    """Picture files."""

    paths: tuple[Path, ...]

    @property
    def count(self) -> int:
        """Pictures."""
        return len(self.paths)

    def load(self) -> list[Image]:
        """Decode them."""
        return [decode(_read(path), str(path)) for path in self.paths]


@dataclass(frozen=True)
class Inline:
    """One picture as base64, the way MMBench's tables carry it."""

    text: str
    name: str
    count: int = 1

    def load(self) -> list[Image]:
        """Decode it."""
        try:
            content = base64.b64decode(self.text, validate=True)
        except binascii.Error:
            raise TaskError(f"{self.name}: the picture is no base64, get the file again") from None
        return [decode(content, self.name)]


@dataclass(frozen=True)
class FrameFolder:
    """Frames of a video as numbered picture files.

    Attributes:
        folder: where they are; the order is that of their names.
        frames: how many are taken.
        rate_hz: frames per second of the folder.
        start_s: where the part that is meant begins.
        end_s: where it ends; None for the last frame.
    """

    folder: Path
    frames: int
    rate_hz: float
    start_s: float = 0.0
    end_s: float | None = None

    @property
    def count(self) -> int:
        """Frames that are taken at most."""
        return self.frames

    def load(self) -> list[Image]:
        """Decode the frames nearest to evenly spaced times."""
        if not self.folder.is_dir():
            raise MissingDataError(f"{self.folder} is missing: put the frames of the video there")
        files = sorted(p for p in self.folder.iterdir() if p.suffix in (".jpg", ".png"))
        if not files:
            raise MissingDataError(f"{self.folder} holds no .jpg or .png: put the frames there")
        end_s = len(files) / self.rate_hz if self.end_s is None else self.end_s
        times_s = spread(self.start_s, end_s, self.frames)
        places = [min(int(time * self.rate_hz), len(files) - 1) for time in times_s]
        chosen = [files[place] for place in dict.fromkeys(places)]
        return [decode(_read(path), str(path)) for path in chosen]


def spread(start_s: float, end_s: float, count: int) -> list[float]:
    """`count` times evenly over a stretch, each in the middle of its share."""
    step = max(end_s - start_s, 0.0) / count
    return [start_s + step * (i + 0.5) for i in range(count)]


def find_file(folder: Path, stem: str, suffixes: Sequence[str]) -> Path:
    """The file of a name whose suffix differs between releases; the first when none is there."""
    candidates = [folder / f"{stem}{suffix}" for suffix in suffixes]
    return next((path for path in candidates if path.exists()), candidates[0])


def decode(content: bytes, name: str) -> Image:
    """An RGB picture.

    Raises:
        TaskError: when it is none.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(content)) as picture:
            return picture.convert("RGB")
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError):
        raise TaskError(f"{name} is no picture: get the file again") from None


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise MissingDataError(f"{path} is missing: put the picture there") from None
