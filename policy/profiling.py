"""A policy as a cell of a measurement: compressed frames in, an action chunk out.

The query that is timed is what a robot waits for: camera frames are decoded from JPEG, checked as
an observation, and answered. Stamps follow the policy's own rate, so a method with memory finds the
history that it would find on a robot.
"""

from __future__ import annotations

import io
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from engines.profile.measure import Spent
from policy.types import Observation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaxtyping import Float32, UInt8

    from engines.profile.measure import Span
    from policy.types import Policy, Timing
    from pruning.history import PrunerState

JPEG_QUALITY = 95
_COARSE = 8
_STILL_HZ = 1.0


@dataclass(frozen=True)
class Scene:
    """What the robot sees in one round.

    Attributes:
        frames: one JPEG per view, in the policy's order.
        state: proprioception, or None.
    """

    frames: tuple[bytes, ...]
    state: Float32[np.ndarray, " s"] | None


class PolicyCell:
    """Answers the query of a round with one policy. Call it with the number of the round.

    Attributes:
        timings: what the policy said of every query, in order.

    Args:
        policy: any policy, on whatever runtime.
        scenes: what it sees, one after the other, again from the first when there are no more.
        instruction: what it is told.
    """

    def __init__(self, policy: Policy, scenes: Sequence[Scene], instruction: str) -> None:
        self._policy, self._scenes, self._instruction = policy, scenes, instruction
        self._state: PrunerState = policy.initial_state()
        self._step_s = 1.0 / (policy.action_spec.rate_hz or _STILL_HZ)
        self.timings: list[Timing] = []

    def __call__(self, number: int) -> Spent:
        """Decode, check, infer."""
        scene = self._scenes[number % len(self._scenes)]
        start = time.perf_counter()
        images = tuple(decode_jpeg(frame) for frame in scene.frames)
        decoded_ms = (time.perf_counter() - start) * 1e3
        observation = Observation(images, scene.state, self._instruction, number * self._step_s)
        checked_ms = (time.perf_counter() - start) * 1e3
        answer = self._policy.infer(observation, self._state)
        self._state = answer.state
        self.timings.append(answer.timing)
        before = (("decode_image", 0.0, decoded_ms), ("observation", decoded_ms, checked_ms))
        spans = (*before, *_spans(answer.timing, checked_ms))
        return Spent(spans, warmup=answer.timing.dense_warmup)


def decode_jpeg(data: bytes) -> UInt8[np.ndarray, "h w 3"]:
    """One compressed frame as RGB."""
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))


def encode_jpeg(frame: UInt8[np.ndarray, "h w 3"]) -> bytes:
    """One RGB frame as a camera driver would send it."""
    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, "JPEG", quality=JPEG_QUALITY)
    return buffer.getvalue()


def synthetic_scenes(policy: Policy, size: int, count: int = 8, seed: int = 0) -> list[Scene]:
    """Scenes for a measurement: smooth random shapes under a little noise, the same every time.

    Only the time to decode a JPEG depends on what is in the picture; the rest of a query does not.

    Args:
        policy: says how many views and which proprioception.
        size: side of a frame, pixels.
        count: different scenes.
        seed: of the pictures.

    Raises:
        ValueError: for a size or a count that makes no frame.
    """
    if size < _COARSE or count < 1:
        raise ValueError(f"{count} frame(s) of {size} pixels: give 1 or more of at least {_COARSE}")
    draw = np.random.default_rng(seed)
    spec = policy.observation_spec
    states = len(spec.state_names)
    return [
        Scene(
            tuple(encode_jpeg(_picture(draw, size)) for _ in spec.views),
            draw.uniform(-0.1, 0.1, states).astype(np.float32) if states else None,
        )
        for _ in range(count)
    ]


def _picture(draw: np.random.Generator, size: int) -> UInt8[np.ndarray, "h w 3"]:
    coarse = draw.integers(0, 256, (_COARSE, _COARSE, 3), dtype=np.uint8)
    smooth = Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC)
    noise = draw.integers(-6, 7, (size, size, 3))
    return (np.asarray(smooth).astype(np.int64) + noise).clip(0, 255).astype(np.uint8)


def _spans(timing: Timing, shift_ms: float) -> tuple[Span, ...]:
    """The policy's stretches; one after the other when it tells their lengths alone."""
    if timing.spans:
        return tuple((name, a + shift_ms, b + shift_ms) for name, a, b in timing.spans)
    spans, at = [], shift_ms
    for name, ms in timing.phase_ms.items():
        spans.append((name, at, at + ms))
        at += ms
    return tuple(spans)
