"""Which topic of a recording is what, so that messages become observations again.

A robot's contract says it for recordings of that robot. Our own recordings carry it inside, as a
metadata record, and need no contract.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from msgspec import Struct

from policy.contract import Age, Camera, Contract, State
from policy.types import ActionSpec, ObservationSpec

if TYPE_CHECKING:
    from collections.abc import Mapping

LAYOUT_RECORD = "leanvla.layout"
RESULT_RECORD = "leanvla.result"
SCHEMA = "leanvla.layout/1"
INSTRUCTION_TOPIC = "/leanvla/instruction"
ACTION_TOPIC = "/leanvla/action"
DECISION_TOPIC = "/leanvla/decision"
STATE_TOPIC = "/leanvla/state"

Fact = str | int | float | bool | None

_ALWAYS = Age(max_ms=1e12, ahead_ms=1e12)  # a file's clock is not the node's: order still counts
_NOT_A_NAME = re.compile(r"[^A-Za-z0-9_]+")


class Layout(Struct, frozen=True, kw_only=True):
    """The topics of a recording. Its first four fields are a contract's, read by the same code.

    Attributes:
        cameras, state, skew_ms, allow_unstamped: as in `policy.contract.Contract`.
        action_names, rotation, gripper, rate_hz: what the recorded rows mean.
        facts: who recorded what: policy, method, keep, seed, ...
        contract: the robot's own words, where a robot was recorded.
    """

    cameras: tuple[Camera, ...]
    state: tuple[State, ...]
    skew_ms: float
    action_names: tuple[str, ...]
    rotation: str
    gripper: str
    rate_hz: float
    allow_unstamped: bool = False
    instruction_topic: str = INSTRUCTION_TOPIC
    action_topic: str = ACTION_TOPIC
    decision_topic: str = DECISION_TOPIC
    facts: dict[str, Fact] = {}
    contract: Contract | None = None
    schema: str = SCHEMA

    @property
    def observation(self) -> ObservationSpec:
        """Views and state values, in the recording's order."""
        names = tuple(name for source in self.state for name in source.values)
        return ObservationSpec(tuple(camera.view for camera in self.cameras), names)

    @property
    def action(self) -> ActionSpec:
        """Meaning of a recorded row."""
        return ActionSpec(self.action_names, 1, self.rate_hz, self.rotation, self.gripper)


def layout_of(contract: Contract) -> Layout:
    """The layout of what a robot's topics carry."""
    action = contract.action
    return Layout(
        cameras=contract.cameras,
        state=contract.state,
        skew_ms=contract.skew_ms,
        allow_unstamped=contract.allow_unstamped,
        action_names=action.names,
        rotation=action.rotation,
        gripper=action.gripper,
        rate_hz=action.rate_hz,
        contract=contract,
    )


def layout_for(
    observation: ObservationSpec,
    action: ActionSpec,
    sizes: Mapping[str, tuple[int, int]],
    facts: Mapping[str, Fact] | None = None,
) -> Layout:
    """A layout for a recording without a robot: raw RGB pictures, state by name.

    Args:
        observation: views and state values.
        action: meaning of a row.
        sizes: per view, width and height.
        facts: who recorded what.
    """
    cameras = tuple(
        Camera(
            view=view,
            topic=f"/{_NOT_A_NAME.sub('_', view)}/image_raw",
            frame_id="",
            width=sizes[view][0],
            height=sizes[view][1],
            rate_hz=action.rate_hz,
            age=_ALWAYS,
            frozen_s=None,
            encodings=("rgb8",),
        )
        for view in observation.views
    )
    values = {name: f"{name}.position" for name in observation.state_names}
    state = (
        State(topic=STATE_TOPIC, type="sensor_msgs/msg/JointState", values=values, age=_ALWAYS),
    )
    return Layout(
        cameras=cameras,
        state=state if values else (),
        skew_ms=1.0,
        allow_unstamped=True,
        action_names=action.names,
        rotation=action.rotation,
        gripper=action.gripper,
        rate_hz=action.rate_hz,
        facts=dict(facts or {}),
    )
