"""The scripted expert: a function of the present state alone.

It keeps no phase, so it recovers from slips and noise and can take over from a policy at any step.
Each family maps the state to a waypoint and a gripper command; a clipped proportional controller
turns the waypoint into one OSC action. Motion over the table goes through a funnel: the further the
hand is from the column above its waypoint, the higher it flies.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sim.suites.tabletop.layout import (
    BIN_FLOOR,
    BLOCK_TOP,
    HALF_HEIGHT,
    PLATE_TOP,
    TABLE_Z,
)
from sim.suites.tabletop.tasks import PICK_LIFT, SIDES, Task, at_goal

if TYPE_CHECKING:
    from jaxtyping import Float32, Float64

    from sim.suites.tabletop.state import Snapshot

OPEN, CLOSE = -1.0, 1.0
METRES_PER_UNIT = 0.05
RADIANS_PER_UNIT = 0.5

_GAIN = 1.8
_TURN_GAIN = 1.0
_MAX_TURN = 0.3
_CLEAR = 0.075
_CARRY = 0.115
_RETREAT = 0.13
_DROP = {"bin": 0.022, "plate": 0.005, "block": 0.004}
_SURFACE = {"bin": BIN_FLOOR, "plate": PLATE_TOP, "block": BLOCK_TOP}
_RELEASE_ERROR = {"bin": 0.02, "plate": 0.02, "block": 0.014}
_PUSH_Z = 0.018
_PUSH_BEHIND = 0.062
PUSH_FAR = 0.095
_PUSH_SPEED = 0.7


class Motion(NamedTuple):
    """Where the hand should go, what the fingers should do, and how fast at most."""

    waypoint: Float64[np.ndarray, " 3"]
    gripper: float
    speed: float = 1.0


def expert_action(
    task: Task, s: Snapshot, upright: Float64[np.ndarray, "3 3"]
) -> Float32[np.ndarray, " 7"]:
    """The expert's action, in the normalised units of OSC_POSE.

    Args:
        task: what is asked for.
        s: the present state.
        upright: rotation matrix of the hand that the expert holds on to.
    """
    motion = _push(task, s) if task.family == "push" else _carry(task, s)
    action = np.zeros(7, np.float32)
    move = _GAIN * (motion.waypoint - s.eef) / METRES_PER_UNIT
    action[:3] = np.clip(move, -motion.speed, motion.speed)
    turn = _TURN_GAIN * _rotation_vector(upright @ s.eef_rot.T) / RADIANS_PER_UNIT
    action[3:6] = np.clip(turn, -_MAX_TURN, _MAX_TURN)
    action[6] = motion.gripper
    return action


def _carry(task: Task, s: Snapshot) -> Motion:
    """pick, put and stack: fetch the target, bring it over the goal, let go, retreat."""
    target = s.position[task.colour]
    if task.family != "pick" and s.touched[task.colour] < 2 and at_goal(task, s):
        return _retreat(s)
    if s.touched[task.colour] < 2:
        return _fetch(s, target)
    if task.family == "pick":
        top = s.start[task.colour][2] + PICK_LIFT + 0.04
        return Motion(np.array([s.eef[0], s.eef[1], top]), CLOSE)
    return _place(task, s, target)


def _fetch(s: Snapshot, target: Float64[np.ndarray, " 3"]) -> Motion:
    """Open, come down over the target, close."""
    error = float(np.hypot(*(target - s.eef)[:2]))
    height = float(s.eef[2] - target[2])
    closing = s.width < 0.065
    near = (0.02, 0.018) if closing else (0.010, 0.010)
    if error < near[0] and abs(height) < near[1] and s.width > 0.012:
        return Motion(np.array([*s.eef[:2], target[2]]), CLOSE)
    return Motion(_through_funnel(s, target[:2], target[2]), OPEN)


def _place(task: Task, s: Snapshot, target: Float64[np.ndarray, " 3"]) -> Motion:
    """Carry the held target over the goal, lower it, let go."""
    goal = s.receptacle[task.goal]
    grip_height = s.eef[2] - target[2]
    rest = goal[2] + _SURFACE[task.goal] + HALF_HEIGHT[task.shape]
    release = rest + _DROP[task.goal]
    error = float(np.hypot(*(goal - target)[:2]))
    if error < _RELEASE_ERROR[task.goal] and target[2] < release + 0.006:
        return Motion(s.eef, OPEN)
    low = release + grip_height
    high = max(TABLE_Z + _CARRY, low + 0.02)
    waypoint = np.array([*(s.eef + goal - target)[:2], low])
    waypoint[2] += np.clip((error - 0.8 * _RELEASE_ERROR[task.goal]) * 4, 0.0, high - low)
    if error > 0.03:
        clearance = s.eef[2] - (TABLE_Z + _CARRY - 0.04)
        waypoint[:2] = s.eef[:2] + (waypoint - s.eef)[:2] * np.clip(clearance / 0.03, 0.0, 1.0)
    return Motion(waypoint, CLOSE)


def _push(task: Task, s: Snapshot) -> Motion:
    """Come down behind the target with closed fingers and shove it along."""
    side = SIDES[task.goal]
    target = s.position[task.colour]
    done = side * (target - s.start[task.colour])[1] >= PUSH_FAR
    if done:
        return _retreat(s, CLOSE)
    behind = side * (target - s.eef)[1]
    aside = abs(target[0] - s.eef[0])
    low = s.eef[2] < TABLE_Z + _PUSH_Z + 0.014
    if low and behind > 0.02 and aside < 0.018 and s.width < 0.03:
        ahead = np.array([target[0], target[1] + side * 0.05, TABLE_Z + _PUSH_Z])
        return Motion(ahead, CLOSE, _PUSH_SPEED)
    station = target[:2] - np.array([0.0, side * _PUSH_BEHIND])
    return Motion(_through_funnel(s, station, TABLE_Z + _PUSH_Z), CLOSE)


def _retreat(s: Snapshot, gripper: float = OPEN) -> Motion:
    """Straight up, once the fingers have let go."""
    if gripper == OPEN and s.width < 0.06:
        return Motion(s.eef, OPEN)
    return Motion(np.array([*s.eef[:2], max(s.eef[2], TABLE_Z + _RETREAT)]), gripper)


def _through_funnel(
    s: Snapshot, xy: Float64[np.ndarray, " 2"], low: float
) -> Float64[np.ndarray, " 3"]:
    """A waypoint on the way down to (`xy`, `low`) that flies over everything on the table."""
    offset = xy - s.eef[:2]
    error = float(np.hypot(*offset))
    z = low + np.clip((error - 0.006) * 6, 0.0, _CLEAR)
    if error > 0.02:
        offset = offset * np.clip((s.eef[2] - low - 0.03) / 0.03, 0.0, 1.0)
    return np.array([*(s.eef[:2] + offset), z])


def _rotation_vector(rotation: Float64[np.ndarray, "3 3"]) -> Float64[np.ndarray, " 3"]:
    """Axis times angle of a small rotation (the sine's vector suffices below a right angle)."""
    return 0.5 * np.array(
        [
            rotation[2, 1] - rotation[1, 2],
            rotation[0, 2] - rotation[2, 0],
            rotation[1, 0] - rotation[0, 1],
        ]
    )
