"""What a schema cannot say: limits that limit, names that fit, a policy that means the same."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec

from policy.contract import (
    COLOUR_ENCODINGS,
    JOINT_LIMITS_ONLY,
    Axis,
    Box,
    Contract,
    ContractError,
    JointState,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from policy.contract import Camera, State
    from policy.types import ActionSpec, ObservationSpec

_AXES = {"linear": 3, "angular": 3}
_SAFE = {"twist": ("zero_twist", "stop"), "trajectory": ("hold_measured", "stop")}
_KINDS = {"twist": ("delta_eef", "twist"), "trajectory": ("joint_position", "joint_delta")}
_POSE_FIELDS = {
    f"{part}.{axis}" for part in ("position", "axis_angle", "rpy", "quaternion") for axis in "xyz"
} | {"quaternion.w"}


def check(contract: Contract) -> None:
    """Refuse a contract that contradicts itself or leaves a limit out.

    Raises:
        ContractError: with every problem found, in one sentence.
    """
    problems = [*_numbers(contract), *_cameras(contract), *_state(contract)]
    problems += [*_command(contract), *_limits(contract), *_gripper(contract)]
    problems += _execution(contract)
    if problems:
        raise ContractError("; ".join(problems))


def match(contract: Contract, observation: ObservationSpec, action: ActionSpec) -> None:
    """Refuse a policy that reads or says something else than this robot shows and takes.

    Raises:
        ContractError: with both sides of every difference.
    """
    views = tuple(camera.view for camera in contract.cameras)
    shown = [name for source in contract.state for name in source.values]
    problems = [
        f"the policy reads view {view!r}, the contract's cameras show {_list(views)}"
        for view in observation.views
        if view not in views
    ]
    problems += [
        f"the policy reads state value {name!r}, the contract gives {_list(shown)}"
        for name in observation.state_names
        if name not in shown
    ]
    for field in ("names", "rotation", "gripper", "rate_hz"):
        says, takes = getattr(action, field), getattr(contract.action, field)
        if says != takes:
            problems.append(
                f"action {field} differs: the policy says {says}, robot {contract.robot} "
                f"takes {takes}"
            )
    execute = contract.execution.execute
    if execute is not None and execute > action.horizon:
        problems.append(f"execution.execute is {execute}, the policy's chunk has {action.horizon}")
    if problems:
        raise ContractError("; ".join(problems))


def _list(names: object) -> str:
    return ", ".join(map(str, names)) or "none"  # type: ignore[call-overload]


def _numbers(contract: Contract) -> Iterator[str]:
    """Every number must be finite, and positive where only a positive one means anything."""
    for path, name, value in _walk("", contract):
        if not math.isfinite(value):
            yield f"{path} is {value}: give a number"
        elif name in _POSITIVE and not value > 0:
            yield f"{path} is {value:g}: give a positive number"
        elif name in _NOT_NEGATIVE and value < 0:
            yield f"{path} is {value:g}: give zero or more"


_POSITIVE = {
    "rate_hz",
    "skew_ms",
    "max_ms",
    "width",
    "height",
    "velocity",
    "acceleration",
    "jerk",
    "latch_after",
    "lookahead",
    "deadline_ms",
    "hang_s",
    "execute",
    "move_s",
    "frozen_s",
    "depth",
}
_NOT_NEGATIVE = {"ahead_ms", "margin", "blend_rows", "freeze_rows", "settle_ms", "gripper_column"}


def _walk(path: str, value: object) -> Iterator[tuple[str, str, float]]:
    if isinstance(value, msgspec.Struct):
        items = [(name, getattr(value, name)) for name in value.__struct_fields__]
    elif isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, tuple):
        items = [(str(i), item) for i, item in enumerate(value)]
    else:
        items = []
    for name, item in items:
        where = f"{path}.{name}" if path else str(name)
        if isinstance(item, (int, float)) and not isinstance(item, bool):
            yield where, str(name), item
        else:
            yield from _walk(where, item)


def _cameras(contract: Contract) -> Iterator[str]:
    views = [camera.view for camera in contract.cameras]
    if not views:
        yield "cameras is empty: name the camera of every view"
    if len(set(views)) != len(views):
        yield f"cameras feed a view twice: {_list(views)}"
    for camera in contract.cameras:
        yield from _camera(camera)


def _camera(camera: Camera) -> Iterator[str]:
    unknown = [e for e in camera.encodings if e not in COLOUR_ENCODINGS]
    if unknown or not camera.encodings:
        yield (
            f"camera {camera.view}: encodings {_list(camera.encodings)}: "
            f"choose from {_list(COLOUR_ENCODINGS)}"
        )
    if camera.crop is not None:
        top, left, height, width = camera.crop
        inside = top >= 0 and left >= 0 and height > 0 and width > 0
        if not inside or top + height > camera.height or left + width > camera.width:
            frame = f"{camera.height} x {camera.width}"
            yield f"camera {camera.view}: crop {camera.crop} leaves a frame of {frame}"


def _state(contract: Contract) -> Iterator[str]:
    names = [name for source in contract.state for name in source.values]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        yield f"state gives {_list(twice)} twice"
    for source in contract.state:
        yield from _source(source)


def _source(source: State) -> Iterator[str]:
    for name, field in source.values.items():
        if source.type == JointState:
            joint, _, part = field.rpartition(".")
            if not joint or part not in ("position", "velocity"):
                yield f"state {name!r}: {field!r} is not JOINT.position or JOINT.velocity"
        elif field not in _POSE_FIELDS:
            yield f"state {name!r}: {field!r}: choose from {_list(sorted(_POSE_FIELDS))}"


def _command(contract: Contract) -> Iterator[str]:
    command, action = contract.command, contract.action
    if command.safe_action not in _SAFE[command.kind]:
        yield (
            f"command.safe_action is {command.safe_action}: a {command.kind} robot can "
            f"{' or '.join(_SAFE[command.kind])}"
        )
    if action.kind not in _KINDS[command.kind]:
        yield (
            f"action.kind is {action.kind}: a {command.kind} command is made from "
            f"{' or '.join(_KINDS[command.kind])}"
        )
    if command.topic == command.guarded_topic:
        yield f"command.topic is the robot's own {command.topic}: the guard must stand between"
    if command.kind == "trajectory" and not command.joints:
        yield "command.joints is empty: name the controller's joints, in its order"
    if len(set(command.joints)) != len(command.joints):
        yield f"command.joints repeats a name: {_list(command.joints)}"
    yield from _columns(contract)


def _columns(contract: Contract) -> Iterator[str]:
    action, command = contract.action, contract.command
    width = 6 if command.kind == "twist" else len(command.joints)
    for name in ("columns", "scale"):
        have = len(getattr(action, name))
        if have != width:
            yield f"action.{name} has {have} values, {command.kind} commands have {width}"
    gripper = () if action.gripper_column is None else (action.gripper_column,)
    used = (*action.columns, *gripper)
    if any(not 0 <= c < len(action.names) for c in used) or len(set(used)) != len(used):
        yield f"action columns {used} are not different places among {len(action.names)} names"
    if any(s == 0 for s in action.scale):
        yield "action.scale has a zero, which would silence an axis"
    if action.rate_hz != contract.rate_hz:
        yield f"action.rate_hz is {action.rate_hz:g}, commands go out at {contract.rate_hz:g}"


def _limits(contract: Contract) -> Iterator[str]:
    limits, command = contract.limits, contract.command
    if command.kind == "twist":
        for name in _AXES:
            if not isinstance(getattr(limits, name), Axis):
                yield f"limits.{name} is missing: a twist robot declares it"
        if limits.workspace == JOINT_LIMITS_ONLY:
            yield "limits.workspace must be a box: a twist command knows no joints"
    else:
        missing = [name for name in command.joints if name not in limits.joints]
        if missing:
            yield f"limits.joints lacks {_list(missing)}"
        for name, joint in limits.joints.items():
            if not joint.lower < joint.upper:
                yield f"limits.joints.{name}: lower {joint.lower:g} is not below {joint.upper:g}"
    if isinstance(limits.workspace, Box):
        low, high = limits.workspace.lower, limits.workspace.upper
        if not all(a < b for a, b in zip(low, high, strict=True)):
            yield f"limits.workspace: lower {low} is not below upper {high}"
        if not contract.feedback.pose:
            yield "limits.workspace is a box, but feedback.pose names no topic to hold it against"
    if limits.margin > 0.5:
        yield f"limits.margin is {limits.margin:g}: clamping half a limit away hides a fault"


def _gripper(contract: Contract) -> Iterator[str]:
    gripper = contract.gripper
    if (gripper is None) != (contract.action.gripper_column is None):
        yield "gripper and action.gripper_column go together: give both or neither"
    if gripper is None:
        return
    if gripper.open_at == gripper.closed_at or gripper.open_position == gripper.closed_position:
        yield "gripper: open and closed are the same"
    if gripper.topic == gripper.guarded_topic:
        yield "gripper.topic is the robot's own: the guard must stand between"


def _execution(contract: Contract) -> list[str]:
    execution, problems = contract.execution, []
    if execution.mode == "sequential" and (execution.blend_rows or execution.freeze_rows):
        problems.append("execution: blend_rows and freeze_rows belong to mode overlap")
    if execution.hang_s * 1e3 <= execution.deadline_ms:
        problems.append("execution: hang_s must be longer than deadline_ms")
    return problems
