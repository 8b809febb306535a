"""A camera that sends the same pixels under new stamps looks alive and is not."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from jaxtyping import UInt8

    from policy.contract import Camera

MIN_FRAMES = 3  # two equal frames are a coincidence
_SPARSE = 8  # rows and columns between the pixels that are compared first


class Still(NamedTuple):
    """A picture, since when it has been shown, and how often."""

    image: UInt8[np.ndarray, "h w 3"]
    since_s: float
    frames: int


@dataclass
class FrozenWatch:
    """Since when every camera has shown the same picture."""

    since: dict[str, Still] = field(default_factory=dict)

    def look(self, camera: Camera, image: UInt8[np.ndarray, "h w 3"], stamp_s: float) -> str | None:
        """Take one decoded frame; what is wrong, or None."""
        if camera.frozen_s is None:
            return None
        last = self.since.get(camera.view)
        if last is None or stamp_s < last.since_s or not _equal(image, last.image):
            self.since[camera.view] = Still(image, stamp_s, 1)
            return None
        self.since[camera.view] = last._replace(frames=last.frames + 1)
        still_s = stamp_s - last.since_s
        if last.frames + 1 >= MIN_FRAMES and still_s > camera.frozen_s:
            return f"camera {camera.view}: the same picture for {still_s:.1f} s under new stamps"
        return None

    def clear(self) -> None:
        """Forget all pictures."""
        self.since.clear()


def _equal(one: UInt8[np.ndarray, "h w 3"], other: UInt8[np.ndarray, "h w 3"]) -> bool:
    """Whether two pictures are the same; noise shows in the first pixels that are compared."""
    few = np.array_equal(one[::_SPARSE, ::_SPARSE], other[::_SPARSE, ::_SPARSE])
    return few and np.array_equal(one, other)
