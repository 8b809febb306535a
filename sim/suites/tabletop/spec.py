"""What the tabletop suite shows and takes. Importing it starts no simulator."""

from __future__ import annotations

from policy.types import ActionSpec, ObservationSpec
from sim.render import get_profile
from sim.suites.base import SuiteSpec

VIEWS = ("agentview", "robot0_eye_in_hand")
RATE_HZ = 20.0
HORIZON = 8
MAX_STEPS = 180
RENDER_PROFILE = "lowpoly"
ROLES = ("object", "gripper", "goal")
STATE_NAMES = (
    "eef_x [m]",
    "eef_y [m]",
    "eef_z [m]",
    "eef_ax [rad]",
    "eef_ay [rad]",
    "eef_az [rad]",
    "gripper_left [m]",
    "gripper_right [m]",
)
ACTION_NAMES = (
    "dx [0.05 m]",
    "dy [0.05 m]",
    "dz [0.05 m]",
    "droll [0.5 rad]",
    "dpitch [0.5 rad]",
    "dyaw [0.5 rad]",
    "gripper [-1..1]",
)


def tabletop_spec(render_profile: str | None = None) -> SuiteSpec:
    """The spec of the suite; without a render profile, that of `lowpoly`.

    Raises:
        ValueError: on an unknown render profile.
    """
    return SuiteSpec(
        name="tabletop",
        observation=ObservationSpec(VIEWS, STATE_NAMES),
        action=ActionSpec(ACTION_NAMES, HORIZON, RATE_HZ),
        max_steps=MAX_STEPS,
        render_profile=get_profile(render_profile or RENDER_PROFILE).name,
        roles=ROLES,
        saves=True,
    )
