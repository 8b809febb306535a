"""Where everything lies in a scene of `scene_qa`, and what moves in a clip.

The tabletop suite's four movable bodies are slots: a scene paints and shapes them as it likes, so
that colours repeat and there is something to count. A receptacle that is absent stands behind the
camera.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from sim.scene_qa.kinds import draw_content
from sim.suites.tabletop.layout import (
    ARM_POSE,
    COLOURS,
    RECEPTACLES,
    RGB,
    Layout,
    Movable,
    vary_colour,
)

if TYPE_CHECKING:
    from jaxtyping import Float64

    from sim.scene_qa.kinds import Content

    Places = Float64[np.ndarray, "objects 2"]

PALETTE = {**RGB, "cyan": (0.10, 0.74, 0.80)}
AWAY = 3.0
"""Behind the camera, m."""

_X, _Y = (-0.19, 0.12), (-0.19, 0.19)
_SPACING = 0.075
_RECEPTACLE_SPACING = 0.135
_SHIFT = 0.09
_ARM_JITTER = 0.05
_TRIES = 200
CLIP_FRAMES = 4


@dataclass(frozen=True)
class Scene:
    """A layout, and what its bodies are called: `red cube`, `bin`."""

    layout: Layout
    names: dict[str, str]


@dataclass(frozen=True)
class ClipPlan:
    """A clip: one scene per frame, and what moved before each frame but the first.

    Attributes:
        scenes: frames in order of time.
        moved: slot that moved into frame `i + 1`, None where nothing did.
    """

    scenes: tuple[Scene, ...]
    moved: tuple[str | None, ...]


def sample_scene(rng: np.random.Generator) -> Scene:
    """A still scene."""
    return lay_out(rng, draw_content(rng))


def sample_clip(rng: np.random.Generator) -> ClipPlan:
    """A clip in which one or two of at least two distinct objects change their place.

    Objects are displaced between frames; nobody pushes them. The arm stays where it is.
    """
    first = lay_out(rng, draw_content(rng, distinct=True, least=2))
    moves = int(rng.integers(1, 3))
    slots = rng.permutation(list(first.layout.movables))[:moves]
    times = np.sort(rng.choice(CLIP_FRAMES - 1, moves, replace=False))
    moved: list[str | None] = [None] * (CLIP_FRAMES - 1)
    for time, slot in zip(times, slots, strict=True):
        moved[time] = str(slot)
    scenes = [first]
    for slot in moved:
        scenes.append(scenes[-1] if slot is None else _displaced(rng, scenes[-1], slot))
    return ClipPlan(tuple(scenes), tuple(moved))


def lay_out(rng: np.random.Generator, content: Content) -> Scene:
    """A scene that holds this, everything somewhere by chance."""
    slots = [str(slot) for slot in rng.permutation(COLOURS)[: len(content.movables)]]
    places = _places(rng, len(content.receptacles), len(slots))
    stand = dict(zip(content.receptacles, places, strict=False))
    lie = places[len(content.receptacles) :]
    movables: dict[str, Movable] = {}
    rgb = {name: vary_colour(rng, RGB[name]) for name in (*RECEPTACLES, "table")}
    rgb |= {slot: RGB[slot] for slot in COLOURS}
    for slot, name, xy in zip(slots, content.movables, lie, strict=True):
        colour, shape = name.split()
        movables[slot] = Movable(shape, (float(xy[0]), float(xy[1])), float(rng.uniform(-0.6, 0.6)))
        rgb[slot] = vary_colour(rng, PALETTE[colour])
    layout = Layout(
        movables={slot: movables[slot] for slot in COLOURS if slot in movables},
        receptacles={name: _spot(stand, name) for name in RECEPTACLES},
        rgb=rgb,
        light_dir=(float(rng.uniform(-0.5, 0.5)), float(rng.uniform(-0.5, 0.5)), -1.0),
        diffuse=float(rng.uniform(0.4, 0.65)),
        ambient=float(rng.uniform(0.25, 0.4)),
        arm=tuple(float(q) for q in np.add(ARM_POSE, rng.uniform(-1, 1, 7) * _ARM_JITTER)),
    )
    names = dict(zip(slots, content.movables, strict=True))
    return Scene(layout, names | {name: name for name in content.receptacles})


def _spot(stand: dict[str, Places], name: str) -> tuple[float, float]:
    xy = stand.get(name)
    return (AWAY, float(RECEPTACLES.index(name))) if xy is None else (float(xy[0]), float(xy[1]))


def _places(rng: np.random.Generator, receptacles: int, movables: int) -> Places:
    """Positions that keep their distance, receptacles first.

    A crowded draw may have no room for the last ones; then everything is drawn anew.
    """
    count = receptacles + movables
    gap = np.full((count, count), _SPACING)
    gap[:receptacles] = gap[:, :receptacles] = 0.5 * (_SPACING + _RECEPTACLE_SPACING)
    gap[:receptacles, :receptacles] = _RECEPTACLE_SPACING
    while True:
        chosen = np.empty((0, 2))
        for _ in range(_TRIES):
            if len(chosen) == count:
                return chosen
            xy = np.array([rng.uniform(*_X), rng.uniform(*_Y)])
            if _is_free(xy, chosen, gap[len(chosen), : len(chosen)]):
                chosen = np.vstack([chosen, xy])


def _is_free(xy: np.ndarray, others: Places, gap: np.ndarray) -> bool:
    return bool((np.linalg.norm(others - xy, axis=1) >= gap).all())


def _displaced(rng: np.random.Generator, scene: Scene, slot: str) -> Scene:
    """The scene with one object somewhere else; as it was, when there is no room at all."""
    layout = scene.layout
    movables = [m.xy for other, m in layout.movables.items() if other != slot]
    stands = [xy for xy in layout.receptacles.values() if xy[0] != AWAY]
    others = np.array([*movables, *stands]).reshape(-1, 2)
    gap = np.array(
        [_SPACING] * len(movables) + [0.5 * (_SPACING + _RECEPTACLE_SPACING)] * len(stands)
    )
    old = layout.movables[slot]
    for _ in range(_TRIES):
        xy = np.array([rng.uniform(*_X), rng.uniform(*_Y)])
        if np.linalg.norm(xy - old.xy) >= _SHIFT and _is_free(xy, others, gap):
            moved = replace(old, xy=(float(xy[0]), float(xy[1])))
            return Scene(replace(layout, movables={**layout.movables, slot: moved}), scene.names)
    return scene
