"""Where everything is in an episode: sampling of poses, colours and light.

World frame of robosuite: the table's top is at z = 0.8 m, its centre at x = y = 0, the robot's base
at x = -0.56; the third-person camera looks from +x, so +y is right in its picture.
"""

from __future__ import annotations

import colorsys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from jaxtyping import Float64

    from sim.suites.tabletop.tasks import Task

TABLE_Z = 0.8
COLOURS = ("red", "green", "blue", "yellow")
SHAPES = ("cube", "cylinder")
RECEPTACLES = ("bin", "plate", "block")
HALF_HEIGHT = {"cube": 0.020, "cylinder": 0.0225}
RADIUS = 0.020
BIN_INNER = 0.055
BIN_FLOOR = 0.004
BIN_WALL = 0.035
PLATE_RADIUS = 0.07
PLATE_TOP = 0.008
BLOCK_HALF = 0.030
BLOCK_TOP = 0.040

RGB = {
    "red": (0.86, 0.10, 0.10),
    "green": (0.10, 0.62, 0.16),
    "blue": (0.12, 0.26, 0.90),
    "yellow": (0.96, 0.84, 0.08),
    "bin": (0.24, 0.20, 0.18),
    "plate": (0.70, 0.48, 0.80),
    "block": (0.95, 0.95, 0.95),
    "table": (0.55, 0.50, 0.45),
}
_SLOTS_Y = (-0.18, 0.0, 0.18)
_SLOT_X = -0.165
_SLOT_JITTER = (0.015, 0.02)
_ZONE_X = (-0.045, 0.115)
_ZONE_Y = (-0.17, 0.17)
_MAX_YAW = 0.35
_SPACING = 0.09
_PUSH_ROOM = 0.17
_PUSH_LANE = 0.07
_PUSH_ZONE_Y = 0.09
ARM_POSE = (0.0, 0.196, 0.0, -2.618, 0.0, 2.942, np.pi / 4)
_ARM_JITTER = 0.02


@dataclass(frozen=True)
class Movable:
    """One movable object of an episode: shape, position on the table [m] and yaw [rad]."""

    shape: str
    xy: tuple[float, float]
    yaw: float


@dataclass(frozen=True)
class Layout:
    """Everything a reset writes into the model and the state.

    Attributes:
        movables: present objects by colour.
        receptacles: table position of each receptacle.
        rgb: colour of each object, each receptacle and the table.
        light_dir: direction of the main light.
        diffuse: intensity of the main light.
        ambient: intensity of the light from everywhere.
        arm: initial joint positions, rad.
    """

    movables: dict[str, Movable]
    receptacles: dict[str, tuple[float, float]]
    rgb: dict[str, tuple[float, float, float]]
    light_dir: tuple[float, float, float]
    diffuse: float
    ambient: float
    arm: tuple[float, ...]


def sample_layout(rng: np.random.Generator, task: Task, least_others: int = 0) -> Layout:
    """Draw a layout in which `task` can be done, with at least so many other objects."""
    others = [c for c in COLOURS if c != task.colour]
    order, count = rng.permutation(others), int(rng.integers(1, 4))
    present = [task.colour, *order[: max(count, least_others)]]
    shapes = [task.shape, *rng.choice(SHAPES, len(present) - 1)]
    places = _sample_places(rng, len(present), task)
    movables = {
        str(colour): Movable(str(shape), place, float(rng.uniform(-_MAX_YAW, _MAX_YAW)))
        for colour, shape, place in zip(present, shapes, places, strict=True)
    }
    slots = rng.permutation(3)
    receptacles = {
        name: (
            _SLOT_X + float(rng.uniform(-1, 1)) * _SLOT_JITTER[0],
            _SLOTS_Y[slot] + float(rng.uniform(-1, 1)) * _SLOT_JITTER[1],
        )
        for name, slot in zip(RECEPTACLES, slots, strict=True)
    }
    return Layout(
        movables={c: movables[c] for c in COLOURS if c in movables},
        receptacles=receptacles,
        rgb={name: vary_colour(rng, rgb) for name, rgb in RGB.items()},
        light_dir=(float(rng.uniform(-0.5, 0.5)), float(rng.uniform(-0.5, 0.5)), -1.0),
        diffuse=float(rng.uniform(0.4, 0.65)),
        ambient=float(rng.uniform(0.25, 0.4)),
        arm=tuple(float(q) for q in np.add(ARM_POSE, rng.uniform(-1, 1, 7) * _ARM_JITTER)),
    )


def _sample_places(rng: np.random.Generator, count: int, task: Task) -> list[tuple[float, float]]:
    """Rejection sampling: pairwise spacing, and a free lane for the first object to be pushed."""
    while True:
        xy = np.column_stack([rng.uniform(*_ZONE_X, count), rng.uniform(*_ZONE_Y, count)])
        gaps = np.linalg.norm(xy[:, None] - xy[None], axis=-1)[np.triu_indices(count, 1)]
        if (gaps >= _SPACING).all() and (task.family != "push" or lane_is_free(xy, task.goal)):
            return [(float(x), float(y)) for x, y in xy]


def lane_is_free(xy: Float64[np.ndarray, "objects 2"], side: str) -> bool:
    """Whether the first object can be pushed to `side` without touching another one."""
    sign = 1.0 if side == "right" else -1.0
    ahead = sign * (xy[1:, 1] - xy[0, 1])
    in_lane = (np.abs(xy[1:, 0] - xy[0, 0]) < _PUSH_LANE) & (ahead > -0.12) & (ahead < _PUSH_ROOM)
    return bool(sign * xy[0, 1] < _PUSH_ZONE_Y and not in_lane.any())


def vary_colour(
    rng: np.random.Generator, rgb: tuple[float, float, float]
) -> tuple[float, float, float]:
    """The same colour name in another hue and brightness."""
    hue, saturation, value = colorsys.rgb_to_hsv(*rgb)
    hue = (hue + float(rng.uniform(-0.02, 0.02))) % 1.0
    value = float(np.clip(value * rng.uniform(0.85, 1.1), 0.0, 1.0))
    return colorsys.hsv_to_rgb(hue, saturation, value)
