"""Scenes to pictures and to what is really seen in them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from jaxtyping import UInt8

    from sim.scene_qa.scenes import Scene
    from sim.suites.tabletop.suite import Tabletop

VIEW = "agentview"
IMAGE_SIZE = 224
LEAST_SHARE = 0.0012
"""Share of the picture below which an object counts as hidden: a fifth of a cube in the open."""


@dataclass(frozen=True)
class Seen:
    """One visible object.

    Attributes:
        name: `red cube`, or a receptacle.
        instance: its id in the mask.
        u: horizontal centre of its visible pixels, 0 left to 1 right.
        v: vertical centre, 0 top to 1 bottom.
        slot: body of the simulator.
    """

    name: str
    instance: int
    u: float
    v: float
    slot: str

    @property
    def colour(self) -> str:
        """`red` of `red cube`; empty for a receptacle."""
        return self.name.partition(" ")[0] if " " in self.name else ""

    @property
    def shape(self) -> str:
        """`cube` of `red cube`; empty for a receptacle."""
        return self.name.partition(" ")[2]


@dataclass(frozen=True)
class Shot:
    """One picture with its truth.

    Attributes:
        image: RGB.
        mask: instance id of every pixel, 0 is background.
        instances: what every id is, robot and table included.
        seen: the scene's objects that are visible enough to ask about.
        hidden: whether an object of the scene is not.
    """

    image: UInt8[np.ndarray, "h w 3"]
    mask: UInt8[np.ndarray, "h w"]
    instances: dict[int, str]
    seen: tuple[Seen, ...]
    hidden: bool


class Stage:
    """Renders scenes in one simulator.

    Args:
        suite: a tabletop whose view size is that of the pictures.
    """

    def __init__(self, suite: Tabletop) -> None:
        self._suite = suite

    def shoot(self, scene: Scene) -> Shot:
        """One picture."""
        self._suite.arrange(scene.layout)
        mask, bodies = self._suite.segmentation(VIEW)
        image = self._suite.render(VIEW, mask.shape[0])
        slots = {i: body.split("_")[0] for i, body in bodies.items()}
        names = {i: scene.names.get(slot, slot) for i, slot in slots.items()}
        wanted = {i: slot for i, slot in slots.items() if slot in scene.names}
        seen = tuple(
            Seen(names[i], i, *_centre(mask == i), slot)
            for i, slot in wanted.items()
            if (mask == i).mean() >= LEAST_SHARE
        )
        shown = {i: name for i, name in names.items() if (mask == i).any()}
        return Shot(image, mask.astype(np.uint8), shown, seen, len(seen) < len(wanted))


def _centre(where: np.ndarray) -> tuple[float, float]:
    rows, columns = np.nonzero(where)
    return (
        float(columns.mean() + 0.5) / where.shape[1],
        float(rows.mean() + 0.5) / where.shape[0],
    )
