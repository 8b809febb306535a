"""Constants of the robots that OpenVLA-OFT checkpoints were published for.

The reference keeps them in code and guesses the robot from its command line. Here the name of the
data set decides (`libero_spatial_no_noops`, `aloha_fold_shirt`, `bridge_orig`); a data set of
another robot needs a `leanvla` section in `config.json`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable

_XYZ, _RPY = ("x", "y", "z"), ("roll", "pitch", "yaw")
_DELTA_POSE = (*(f"d{a} [m]" for a in _XYZ), *(f"d{a} [rad]" for a in _RPY))
_OSC = tuple(f"d{a} [osc]" for a in (*_XYZ, "ax", "ay", "az"))
_JOINTS = tuple(
    f"{side} {joint}"
    for side in ("left", "right")
    for joint in (*(f"joint {i} [rad]" for i in range(6)), "gripper [1]")
)

EEF_DELTA_ACTION = (*_DELTA_POSE, "gripper [0 closed, 1 open]")
EEF_DELTA_ROTATION = "rpy_delta"
GRIPPER = "0 closed, 1 open"
"""Polarity of every published checkpoint's actions; a simulator may want another."""


@dataclass(frozen=True)
class Platform:
    """One robot set-up of OpenVLA-OFT (arXiv 2502.19645).

    Attributes:
        name: what the names of its data sets contain.
        chunk: action rows per query.
        views: cameras, main first.
        bounds: statistics that span [-1, 1].
        rate_hz: control rate.
        state_names: proprioceptive values.
        action_names: degrees of freedom.
        rotation: rotation kind of an action's orientation part.
    """

    name: str
    chunk: int
    views: tuple[str, ...]
    bounds: Literal["q99", "minmax"]
    rate_hz: float
    state_names: tuple[str, ...]
    action_names: tuple[str, ...]
    rotation: str


PLATFORMS = (
    Platform(
        name="libero",
        chunk=8,
        views=("agentview", "robot0_eye_in_hand"),
        bounds="q99",
        rate_hz=20.0,
        state_names=(
            *(f"eef {a} [m]" for a in _XYZ),
            *(f"eef axis-angle {a} [rad]" for a in _XYZ),
            *(f"finger {i} [m]" for i in range(2)),
        ),
        action_names=(*_OSC, "gripper [0 closed, 1 open]"),
        rotation="axis_angle_delta",
    ),
    Platform(
        name="aloha",
        chunk=25,
        views=("cam_high", "cam_left_wrist", "cam_right_wrist"),
        bounds="minmax",
        rate_hz=25.0,
        state_names=_JOINTS,
        action_names=_JOINTS,
        rotation="none",
    ),
    Platform(
        name="bridge",
        chunk=5,
        views=("primary",),
        bounds="q99",
        rate_hz=5.0,
        state_names=(
            *(f"eef {a} [m]" for a in _XYZ),
            *(f"eef {a} [rad]" for a in _RPY),
            "gripper [1]",
        ),
        action_names=EEF_DELTA_ACTION,
        rotation=EEF_DELTA_ROTATION,
    ),
)


def platform_of(datasets: Iterable[str]) -> Platform | None:
    """The platform that every data set's name speaks of, None when they disagree or say nothing."""
    names = [name.lower() for name in datasets]
    for platform in PLATFORMS:
        if names and all(platform.name in name for name in names):
            return platform
    return None
