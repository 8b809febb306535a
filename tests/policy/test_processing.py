"""Image steps against slow formulas written out in numpy, and hand-made values."""

from __future__ import annotations

import io
import math
import time
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from policy.openvla.processing import (
    ImageProcessor,
    centre_crop,
    jpeg_round_trip,
    lanczos_resize,
    letterbox,
    normalise,
    resize_crop,
    resize_naive,
)
from policy.openvla.towers import IMAGENET_MEAN, IMAGENET_STD
from policy.types import ObservationError
from tests.policy.tiny import CONFIGS, DINO, SIGLIP


def frame(h: int, w: int, seed: int = 0) -> np.ndarray:
    """Noise over a slope: sharp edges and smooth parts."""
    rng = np.random.default_rng(seed)
    slope = np.linspace(0, 200, w)[None, :, None] * np.linspace(0.2, 1, h)[:, None, None]
    return np.clip(slope + rng.integers(0, 120, (h, w, 3)), 0, 255).astype(np.uint8)


def bicubic(x: float) -> float:
    x, a = abs(x), -0.5
    if x < 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a if x < 2 else 0.0


def lanczos3(x: float) -> float:
    return float(np.sinc(x) * np.sinc(x / 3)) if abs(x) < 3 else 0.0


def filtered(image: np.ndarray, size: int, kernel, support: float) -> np.ndarray:
    """Antialiased separable resampling, the textbook formula in float64."""
    for axis in (1, 0):
        n = image.shape[axis]
        scale = max(n / size, 1.0)
        rows = []
        for i in range(size):
            centre = (i + 0.5) * n / size
            low = max(0, math.floor(centre - support * scale))
            high = min(n, math.ceil(centre + support * scale))
            weights = np.array([kernel((j + 0.5 - centre) / scale) for j in range(low, high)])
            part = np.take(image.astype(np.float64), range(low, high), axis=axis)
            rows.append(np.tensordot(weights / weights.sum(), part, (0, axis)))
        image = np.round(np.clip(np.stack(rows, axis), 0, 255))
    return image


@pytest.mark.parametrize("shape", [(48, 64), (20, 24), (32, 90)])
def test_resize_naive_is_antialiased_bicubic(shape):
    image = frame(*shape)
    expected = filtered(image, 32, bicubic, 2.0)
    assert np.abs(resize_naive(image, 32) - expected).max() <= 1


def test_lanczos_resize_is_antialiased_lanczos3():
    image = frame(48, 64)
    expected = filtered(image, 28, lanczos3, 3.0)
    assert np.abs(lanczos_resize(image, 28) - expected).max() <= 1


def test_letterbox_pads_to_a_square_with_the_mean():
    image = np.full((16, 32, 3), 200, np.uint8)
    out = letterbox(image, 32, (10, 20, 30))
    assert out.shape == (32, 32, 3)
    assert (out[0, 0] == (10, 20, 30)).all()
    assert (out[31, 31] == (10, 20, 30)).all()
    assert (out[16, 16] == 200).all()


def test_resize_crop_takes_the_centre():
    image = np.zeros((20, 60, 3), np.uint8)
    image[:, 20:40] = 255
    out = resize_crop(image, 10)
    assert out.shape == (10, 10, 3)
    assert out[:, 2:8].min() > 250


def test_jpeg_has_tensorflows_settings():
    buffer = io.BytesIO()
    Image.fromarray(frame(32, 32)).save(buffer, "JPEG", quality=95, subsampling="4:2:0")
    expected = np.asarray(Image.open(buffer))
    assert np.array_equal(jpeg_round_trip(frame(32, 32)), expected)
    assert not np.array_equal(expected, frame(32, 32))


def crop_reference(image: np.ndarray, size: int, area: float) -> np.ndarray:
    """`tf.image.crop_and_resize` and `convert_image_dtype` pixel by pixel."""
    h, w, _ = image.shape
    side = math.sqrt(area)
    start = (1 - side) / 2
    out = np.zeros((size, size, 3))
    for i in range(size):
        for j in range(size):
            y = start * (h - 1) + i * side * (h - 1) / (size - 1)
            x = start * (w - 1) + j * side * (w - 1) / (size - 1)
            top, left = math.floor(y), math.floor(x)
            bottom, right = math.ceil(y), math.ceil(x)
            upper = image[top, left] + (x - left) * (image[top, right] - image[top, left])
            lower = image[bottom, left] + (x - left) * (image[bottom, right] - image[bottom, left])
            out[i, j] = upper + (y - top) * (lower - upper)
    return np.floor(out / 255 * 255.5).clip(0, 255)


@pytest.mark.parametrize("shape", [(32, 32), (24, 40)])
def test_centre_crop_samples_as_tensorflow(shape):
    image = frame(*shape)
    expected = crop_reference(image.astype(np.float64), 32, 0.9)
    off = np.abs(centre_crop(image, 32) - expected)
    assert off.max() <= 1
    assert (off > 0).mean() < 0.001  # float32 against float64 at a step of the truncation


def test_centre_crop_known_values():
    # A slope of one grey level per pixel: side sqrt(0.9), so the crop spans 2.566 ... 97.434 of it.
    image = np.repeat(np.arange(101, dtype=np.uint8)[None, :, None], 101, 0).repeat(3, 2)
    out = centre_crop(image, 101)
    assert (out[0, [0, 50, 100], 0] == (2, 50, 97)).all()
    assert (centre_crop(np.full((9, 9, 3), 255, np.uint8), 9) == 255).all()


def test_normalise_known_values():
    image = np.zeros((2, 2, 3), np.uint8)
    image[0, 0] = (255, 128, 0)
    out = np.empty((3, 2, 2), np.float32)
    normalise(image, DINO, out)
    expected = [(1 - 0.485) / 0.229, (128 / 255 - 0.456) / 0.224, -0.406 / 0.225]
    np.testing.assert_allclose(out[:, 0, 0], expected, rtol=1e-6)
    normalise(image, SIGLIP, out)
    np.testing.assert_allclose(out[:, 0, 0], [1.0, 128 / 127.5 - 1, -1.0], atol=1e-6)


def test_normalise_is_the_float32_formula_bit_for_bit():
    image = frame(32, 32)
    out = np.empty((3, 32, 32), np.float32)
    normalise(image, DINO, out)
    scaled = image.transpose(2, 0, 1).astype(np.float32) / np.float32(255)
    mean, std = (np.float32(v)[:, None, None] for v in (IMAGENET_MEAN, IMAGENET_STD))
    assert np.array_equal(out, (scaled - mean) / std)


def test_channels_go_view_by_view_alpha_then_beta():
    config = replace(CONFIGS["oft_discrete_3"], views=("a", "b"))
    images = [frame(32, 32, seed) for seed in range(2)]
    pixels = ImageProcessor(config)(images)
    assert pixels.shape == (1, 12, 32, 32)
    assert pixels.dtype == np.float32
    for view, image in enumerate(images):
        for i, tower in enumerate(config.towers):
            out = np.empty((3, 32, 32), np.float32)
            normalise(image, tower, out)
            start = 6 * view + 3 * i
            assert np.array_equal(pixels[0, start : start + 3], out)


@pytest.mark.parametrize(
    ("changes", "steps"),
    [
        ({}, lambda x: resize_naive(x, 32)),
        ({"resize": "letterbox"}, lambda x: letterbox(x, 32, (127, 127, 127))),
        ({"resize": "resize-crop"}, lambda x: resize_crop(x, 32)),
        ({"eval_resize": True}, lambda x: lanczos_resize(jpeg_round_trip(x), 32)),
        (
            {"eval_resize": True, "centre_crop": True},
            lambda x: centre_crop(lanczos_resize(jpeg_round_trip(x), 32), 32),
        ),
        ({"centre_crop": True}, lambda x: centre_crop(resize_naive(x, 32), 32)),
    ],
)
def test_steps_and_their_order(changes, steps):
    processor = ImageProcessor(replace(CONFIGS["single_ar"], **changes))
    image = frame(40, 56)
    assert np.array_equal(processor.frame(image), steps(image))


def test_right_size_is_not_resampled():
    processor = ImageProcessor(replace(CONFIGS["single_ar"], eval_resize=True))
    image = frame(32, 32)
    assert processor.frame(image) is image


def test_wrong_number_of_cameras():
    with pytest.raises(ObservationError, match=r"1 camera frame.* reads 3: high, left, right"):
        ImageProcessor(CONFIGS["oft_discrete_3"])([frame(32, 32)])


@pytest.mark.alone
def test_two_small_views_take_less_than_half_a_millisecond():
    tower = replace(SIGLIP, image_size=96)
    processor = ImageProcessor(
        replace(CONFIGS["oft_discrete_1"], towers=(tower,), views=("a", "b"))
    )
    images = [frame(96, 96, seed) for seed in range(2)]
    times = []
    for _ in range(50):
        start = time.perf_counter()
        processor(images)
        times.append(time.perf_counter() - start)
    assert min(times) < 0.5e-3
