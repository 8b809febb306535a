"""The compiled scene: four movable primitives, three receptacles, one table, one Panda.

The model is compiled once; a reset edits positions, shapes, colours and lights in place. Each
movable carries a box and a cylinder, of which an episode switches one off; absent movables hang,
without weight and without contacts, far below the table.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING, Any

import numpy as np
from robosuite.environments.manipulation.manipulation_env import ManipulationEnv
from robosuite.models.arenas import TableArena
from robosuite.models.tasks import ManipulationTask

from sim.suites.tabletop.layout import (
    BIN_FLOOR,
    BIN_INNER,
    BIN_WALL,
    BLOCK_HALF,
    BLOCK_TOP,
    COLOURS,
    HALF_HEIGHT,
    PLATE_RADIUS,
    PLATE_TOP,
    RADIUS,
    SHAPES,
    TABLE_Z,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from robosuite.models.robots import ManipulatorModel

    from sim.suites.tabletop.layout import Layout

MASS = 0.05

_FRONT_POS = (0.47, 0.0, 1.45)
_FRONT_LOOK_AT = (-0.055, 0.0, 0.825)
_FRONT_FOV_DEG = "34"
_WRIST_POS = (0.10, 0.0, 0.01)
_WRIST_TILT = 0.42
_PARKED = (0.0, 0.0, -2.0)


class TabletopEnv(ManipulationEnv):
    """robosuite environment that holds the compiled model and the OSC controller.

    Observables, rewards and renderers of robosuite are off: the suite steps physics and renders.
    """

    def __init__(self, xml_processor: Callable[[str], str] | None = None) -> None:
        self._processor = xml_processor
        super().__init__(
            robots="Panda",
            use_camera_obs=False,
            has_renderer=False,
            has_offscreen_renderer=False,
            renderer="mujoco",
            initialization_noise=None,
            control_freq=20,
            hard_reset=False,
            ignore_done=True,
            lite_physics=True,
        )

    def reward(self, action: Any = None) -> float:
        """No reward: success is judged by the suite."""
        return 0.0

    def _load_model(self) -> None:
        super()._load_model()
        robot = self.robots[0].robot_model
        robot.set_base_xpos(robot.base_xpos_offset["table"](0.8))
        _aim_wrist_camera(robot)
        arena = TableArena(table_full_size=(0.8, 0.8, 0.05), table_offset=(0, 0, TABLE_Z))
        arena.set_origin([0, 0, 0])
        _strip_arena(arena)
        for element in _scene_bodies():
            arena.worldbody.append(element)
        self.model = ManipulationTask(mujoco_arena=arena, mujoco_robots=[robot], mujoco_objects=[])
        # robosuite asks for 5000 contacts, 1.3 GB of arena; this scene has a few dozen.
        size = self.model.root.find("size")
        size.attrib.clear()
        size.set("memory", "32M")

    def _setup_observables(self) -> dict[str, Any]:
        return {}

    def _initialize_sim(self, xml_string: str | None = None) -> None:
        if self._processor is not None:
            self.set_xml_processor(self._processor)
        super()._initialize_sim(xml_string)


def _aim_wrist_camera(robot: ManipulatorModel) -> None:
    """Move the wrist camera out and tilt it, so that it sees both fingertips and what they hold."""
    cosine, sine = np.cos(_WRIST_TILT), np.sin(_WRIST_TILT)
    camera = next(c for c in robot.worldbody.iter("camera") if "eye_in_hand" in c.get("name"))
    camera.attrib.pop("quat")
    camera.set("pos", _text(_WRIST_POS))
    camera.set("xyaxes", _text((0, 1, 0, cosine, 0, sine)))


def _strip_arena(arena: TableArena) -> None:
    """Drop walls, legs and textures; set our own cameras and lights."""
    world = arena.worldbody
    for child in list(world):
        if child.tag in ("camera", "light") or "wall" in child.get("name", ""):
            world.remove(child)
    for leg in arena.table_legs_visual:
        arena.table_body.remove(leg)
    arena.table_legs_visual = []
    for geom, rgba in ((arena.floor, "0.3 0.3 0.32 1"), (arena.table_visual, "0.55 0.52 0.5 1")):
        geom.attrib.pop("material", None)
        geom.set("rgba", rgba)
    for child in list(arena.asset):
        if child.get("type") != "skybox":
            arena.asset.remove(child)


def _scene_bodies() -> list[ET.Element]:
    sun = {"name": "sun", "directional": "true", "castshadow": "true", "specular": "0 0 0"}
    return [
        *(_movable_body(colour) for colour in COLOURS),
        _bin_body(),
        _plate_body(),
        _block_body(),
        ET.Element("light", {"pos": "0.6 0 2.2", "dir": "-0.3 0 -1", **sun}),
        _front_camera(),
    ]


def _front_camera() -> ET.Element:
    """The third-person camera: opposite the robot, high enough to see behind the hand."""
    back = np.subtract(_FRONT_POS, _FRONT_LOOK_AT)
    right = np.array([0.0, 1.0, 0.0])
    up = np.cross(back, right) / np.linalg.norm(back)
    axes = _text((*right, *up))
    return ET.Element(
        "camera", name="agentview", pos=_text(_FRONT_POS), xyaxes=axes, fovy=_FRONT_FOV_DEG
    )


def _text(values: Iterable[float]) -> str:
    return " ".join(f"{v:.6g}" for v in values)


def _geom(
    name: str, kind: str, size: Sequence[float], pos: Sequence[float] = (0, 0, 0)
) -> ET.Element:
    looks = {"group": "1", "rgba": "0.5 0.5 0.5 1"}
    # Stiffer than MuJoCo's default contact, so that small boxes do not sink or creep in the grip.
    contact = {"friction": "1 0.005 0.0001", "solref": "0.01 1", "condim": "4"}
    shape = {"type": kind, "size": _text(size), "pos": _text(pos)}
    return ET.Element("geom", {"name": name, "mass": str(MASS), **shape, **looks, **contact})


def _movable_body(colour: str) -> ET.Element:
    # gravcomp is declared here so that MuJoCo compiles it in; a reset switches it per body.
    body = ET.Element("body", name=colour, pos="0 0 1", gravcomp="1")
    inertia = _text([MASS * (2 * RADIUS) ** 2 / 6] * 3)
    body.append(ET.Element("freejoint", name=f"{colour}_joint"))
    body.append(ET.Element("inertial", pos="0 0 0", mass=str(MASS), diaginertia=inertia))
    body.append(_geom(f"{colour}_cube", "box", [HALF_HEIGHT["cube"]] * 3))
    body.append(_geom(f"{colour}_cylinder", "cylinder", [RADIUS, HALF_HEIGHT["cylinder"]]))
    return body


def _bin_body() -> ET.Element:
    body = ET.Element("body", name="bin", pos=f"0 0 {TABLE_Z}")
    inner, wall, rim = BIN_INNER, 0.004, BIN_WALL / 2
    body.append(_geom("bin_floor", "box", (inner, inner, BIN_FLOOR / 2), (0, 0, BIN_FLOOR / 2)))
    for sign in (-1, 1):
        offset = sign * (inner + wall)
        body.append(_geom(f"bin_x{sign}", "box", (wall, inner + 2 * wall, rim), (offset, 0, rim)))
        body.append(_geom(f"bin_y{sign}", "box", (inner, wall, rim), (0, offset, rim)))
    return body


def _plate_body() -> ET.Element:
    body = ET.Element("body", name="plate", pos=f"0 0 {TABLE_Z}")
    half = PLATE_TOP / 2
    body.append(_geom("plate_disc", "cylinder", (PLATE_RADIUS, half), (0, 0, half)))
    return body


def _block_body() -> ET.Element:
    body = ET.Element("body", name="block", pos=f"0 0 {TABLE_Z}")
    half = BLOCK_TOP / 2
    body.append(_geom("block_box", "box", (BLOCK_HALF, BLOCK_HALF, half), (0, 0, half)))
    return body


def apply_layout(model: Any, data: Any, layout: Layout) -> None:
    """Write a layout into the model and into a freshly reset state."""
    for colour in COLOURS:
        _place_movable(model, data, colour, layout)
    for name, (x, y) in layout.receptacles.items():
        model.body(name).pos[:2] = (x, y)
        _paint(model, name, layout.rgb[name])
    model.geom("table_visual").rgba[:3] = layout.rgb["table"]
    model.vis.headlight.ambient[:] = model.vis.headlight.diffuse[:] = 0.1
    model.vis.headlight.specular[:] = 0.0
    sun = model.light("sun")
    sun.dir[:] = np.divide(layout.light_dir, np.linalg.norm(layout.light_dir))
    sun.diffuse[:] = layout.diffuse
    sun.ambient[:] = layout.ambient


def _place_movable(model: Any, data: Any, colour: str, layout: Layout) -> None:
    movable = layout.movables.get(colour)
    pose = (*_PARKED, 1.0, 0.0, 0.0, 0.0)
    if movable is not None:
        z = TABLE_Z + HALF_HEIGHT[movable.shape]
        pose = (*movable.xy, z, np.cos(movable.yaw / 2), 0.0, 0.0, np.sin(movable.yaw / 2))
    data.joint(f"{colour}_joint").qpos[:] = pose
    model.body_gravcomp[model.body(colour).id] = movable is None
    for shape in SHAPES:
        active = movable is not None and movable.shape == shape
        geom = model.geom(f"{colour}_{shape}")
        geom.contype[:] = geom.conaffinity[:] = active
        geom.group[:] = 1 if active else 5
    _paint(model, colour, layout.rgb[colour])


def _paint(model: Any, body: str, rgb: Sequence[float]) -> None:
    owner = model.body(body).id
    model.geom_rgba[model.geom_bodyid == owner, :3] = rgb
