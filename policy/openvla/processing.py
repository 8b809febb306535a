"""From camera frames to `pixel_values`, as the checkpoint was trained and is evaluated.

Every step is a function with a name, because each of them moves success by several points. Frames
are uint8 RGB `[h, w, 3]`. Pillow does the resampling: its bicubic and Lanczos filters widen with
the scale (antialias), like torchvision's on PIL images and TensorFlow's `antialias=True`.

Deviations from the reference's TensorFlow steps: Pillow computes Lanczos-3 in fixed point, and the
two libraries' JPEG decoders round differently; both stay within a few grey levels.
"""

from __future__ import annotations

import io
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from policy.types import ObservationError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaxtyping import Float32, Int64, UInt8

    from policy.openvla.config import OpenVLAConfig, TowerConfig

    Frame = UInt8[np.ndarray, "h w 3"]

CROP_AREA = 0.9
JPEG_QUALITY = 95
_CHROMA_420 = 2


def jpeg_round_trip(frame: Frame) -> Frame:
    """Encode and decode as JPEG with TensorFlow's defaults: quality 95, chroma 4:2:0."""
    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, "JPEG", quality=JPEG_QUALITY, subsampling=_CHROMA_420)
    buffer.seek(0)
    return np.asarray(Image.open(buffer).convert("RGB"))


def lanczos_resize(frame: Frame, size: int) -> Frame:
    """Lanczos-3 with antialias to `size x size`, whatever the aspect."""
    return np.asarray(Image.fromarray(frame).resize((size, size), Image.Resampling.LANCZOS))


def resize_naive(frame: Frame, size: int) -> Frame:
    """Bicubic with antialias to `size x size`, whatever the aspect."""
    return np.asarray(Image.fromarray(frame).resize((size, size), Image.Resampling.BICUBIC))


def letterbox(frame: Frame, size: int, fill: tuple[int, ...]) -> Frame:
    """Pad to a square with `fill`, then resize like `resize_naive`."""
    h, w, _ = frame.shape
    side = max(h, w)
    top, left = (side - h) // 2, (side - w) // 2
    # Equal borders on both ends, as in the reference: an odd difference leaves one pixel over,
    # which the resize absorbs.
    square = np.empty((h + 2 * top, w + 2 * left, 3), np.uint8)
    square[:] = fill
    square[top : top + h, left : left + w] = frame
    return resize_naive(square, size)


def resize_crop(frame: Frame, size: int) -> Frame:
    """Bicubic to `size` on the shorter side, then the centre square."""
    h, w, _ = frame.shape
    short = min(h, w)
    new_h, new_w = (size * h // short, size * w // short)
    resized = Image.fromarray(frame).resize((new_w, new_h), Image.Resampling.BICUBIC)
    top, left = round((new_h - size) / 2.0), round((new_w - size) / 2.0)
    return np.asarray(resized)[top : top + size, left : left + size]


def centre_crop(frame: Frame, size: int, area: float = CROP_AREA) -> Frame:
    """The central `area` of the frame, resized to `size x size` as TensorFlow does it.

    Sampling of `tf.image.crop_and_resize`: the corners of box and output coincide, plain bilinear
    interpolation without antialias, float32; then back to uint8 by `convert_image_dtype`, which
    scales by 255.5 and truncates.
    """
    h, w, _ = frame.shape
    top, bottom, y = _crop_samples(h, size, area)
    left, right, x = _crop_samples(w, size, area)
    image = frame.astype(np.float32) * np.float32(1 / 255)
    image = _between(image[:, left], image[:, right], x[None, :, None])
    image = _between(image[top], image[bottom], y[:, None, None])
    return np.minimum(np.clip(image, 0, 1) * np.float32(255.5), 255).astype(np.uint8)


@lru_cache(maxsize=16)
def _crop_samples(
    source: int, size: int, area: float
) -> tuple[Int64[np.ndarray, " s"], Int64[np.ndarray, " s"], Float32[np.ndarray, " s"]]:
    """Lower and upper neighbour of each sample along one axis, and its distance from the lower."""
    side = np.sqrt(np.float32(area))
    start = (np.float32(1) - side) / np.float32(2)
    stop = start + side
    scale = (stop - start) * np.float32(source - 1) / np.float32(max(size - 1, 1))
    at = start * np.float32(source - 1) + np.arange(size, dtype=np.float32) * scale
    low = np.floor(at).astype(np.int64)
    high = np.minimum(np.ceil(at).astype(np.int64), source - 1)
    return low, high, at - low.astype(np.float32)


def _between(low: np.ndarray, high: np.ndarray, part: np.ndarray) -> np.ndarray:
    return low + (high - low) * part


@lru_cache(maxsize=8)
def _normalised_levels(
    mean: tuple[float, ...], std: tuple[float, ...]
) -> Float32[np.ndarray, "3 256"]:
    """`(level / 255 - mean) / std` of every grey level, in the reference's float32 order."""
    levels = np.arange(256, dtype=np.float32) / np.float32(255)
    return (levels - np.asarray(mean, np.float32)[:, None]) / np.asarray(std, np.float32)[:, None]


def normalise(frame: Frame, tower: TowerConfig, out: Float32[np.ndarray, "3 h w"]) -> None:
    """Write the normalised frame into `out`, channels first. A table look-up, hence exact."""
    levels = _normalised_levels(tower.mean, tower.std)
    for channel in range(3):
        np.take(levels[channel], frame[:, :, channel], out=out[channel], mode="clip")


class ImageProcessor:
    """All image steps of one checkpoint.

    Frames that have the towers' size already are not resampled (nor sent through JPEG).

    Example:
        >>> pixel_values = ImageProcessor(config)([agentview, wrist])
    """

    def __init__(self, config: OpenVLAConfig) -> None:
        self.config = config
        self.size = config.towers[0].image_size
        self.fill = tuple(int(mean * 255) for mean in config.towers[0].mean)

    def __call__(self, images: Sequence[Frame]) -> Float32[np.ndarray, "1 c h w"]:
        """Frames in the order of the policy's views to `pixel_values`: view by view, alpha, beta.

        Raises:
            ObservationError: on a wrong number of cameras.
        """
        views, towers = self.config.views, self.config.towers
        if len(images) != len(views):
            raise ObservationError(
                f"{len(images)} camera frame(s) given, the policy reads {len(views)}: "
                f"{', '.join(views)}"
            )
        out = np.empty((1, 3 * len(towers) * len(views), self.size, self.size), np.float32)
        for view, image in enumerate(images):
            frame = self.frame(image)
            for i, tower in enumerate(towers):
                start = 3 * (view * len(towers) + i)
                normalise(frame, tower, out[0, start : start + 3])
        return out

    def frame(self, image: Frame) -> Frame:
        """All steps before normalisation: the uint8 frame that the towers see."""
        frame = image if image.shape[:2] == (self.size, self.size) else self._resize(image)
        return centre_crop(frame, self.size) if self.config.centre_crop else frame

    def _resize(self, image: Frame) -> Frame:
        if self.config.eval_resize:
            return lanczos_resize(jpeg_round_trip(image), self.size)
        if self.config.resize == "letterbox":
            return letterbox(image, self.size, self.fill)
        if self.config.resize == "resize-crop":
            return resize_crop(image, self.size)
        return resize_naive(image, self.size)
