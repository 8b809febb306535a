"""A camera that sends the same pixels under new stamps looks alive and is not."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import UInt8

    from policy.contract import Camera

MIN_FRAMES = 3  # two equal frames are a coincidence


@dataclass
class FrozenWatch:
    """Since when every camera has shown the same picture."""

    since: dict[str, tuple[int, float, int]] = field(default_factory=dict)

    def look(self, camera: Camera, image: UInt8[np.ndarray, "h w 3"], stamp_s: float) -> str | None:
        """Take one decoded frame; what is wrong, or None."""
        if camera.frozen_s is None:
            return None
        digest = zlib.crc32(image.data)
        last, since_s, frames = self.since.get(camera.view, (None, stamp_s, 0))
        if digest != last or stamp_s < since_s:
            self.since[camera.view] = (digest, stamp_s, 1)
            return None
        self.since[camera.view] = (digest, since_s, frames + 1)
        still_s = stamp_s - since_s
        if frames + 1 >= MIN_FRAMES and still_s > camera.frozen_s:
            return f"camera {camera.view}: the same picture for {still_s:.1f} s under new stamps"
        return None

    def clear(self) -> None:
        """Forget all pictures."""
        self.since.clear()
