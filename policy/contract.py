"""The contract of one robot: what it shows, what it takes, and what it must never do, as YAML.

One file per robot. Everything that a node needs to know about a robot stands here and nowhere in
code; unknown keys, missing limits and contradictions refuse before anything moves
(`policy/contract_file.py` reads, `policy/contract_check.py` checks). Lengths are metres, angles
radians, times seconds or, with the suffix, milliseconds; rates are hertz (REP 103).
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

SCHEMA = 1
JOINT_LIMITS_ONLY = "joint limits only"

Image = "sensor_msgs/msg/Image"
CompressedImage = "sensor_msgs/msg/CompressedImage"
JointState = "sensor_msgs/msg/JointState"
PoseStamped = "geometry_msgs/msg/PoseStamped"

COLOUR_ENCODINGS = ("rgb8", "bgr8", "rgba8", "bgra8", "mono8")


class ContractError(ValueError):
    """A contract that no robot may be driven with: what is wrong, where, and what to write."""


class _Part(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A section of the file."""


class Age(_Part, frozen=True):
    """How old, and how far in the future, a stamp may be. Silence and wrong clocks are faults."""

    max_ms: float
    ahead_ms: float


class Qos(_Part, frozen=True):
    """Quality of service of one subscription."""

    reliability: Literal["best_effort", "reliable"] = "best_effort"
    durability: Literal["volatile", "transient_local"] = "volatile"
    depth: int = 1


class Camera(_Part, frozen=True):
    """One camera, and the policy's view that it feeds.

    Attributes:
        view: what the policy calls this picture.
        type: raw or compressed.
        encodings: raw encodings that this camera may send; others refuse.
        width, height: size of the frames; another size refuses.
        crop: top, left, height, width in pixels, taken first.
        rotate_deg: anticlockwise turn, taken second.
        rate_hz: what the camera should give; half of it warns.
        frozen_s: identical pixels under new stamps for so long are a fault; null where pictures may
            truly stand still, as in simulation.
    """

    view: str
    topic: str
    frame_id: str
    width: int
    height: int
    rate_hz: float
    age: Age
    frozen_s: float | None
    type: Literal["sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"] = (
        "sensor_msgs/msg/Image"
    )
    encodings: tuple[str, ...] = ("rgb8", "bgr8")
    crop: tuple[int, int, int, int] | None = None
    rotate_deg: Literal[0, 90, 180, 270] = 0
    qos: Qos = Qos()


class State(_Part, frozen=True):
    """One source of proprioception.

    Attributes:
        values: the policy's name of a value, and where it stands in the message: `JOINT.position`
            or `JOINT.velocity` of a JointState, `position.x`, `axis_angle.x`, `rpy.x` or
            `quaternion.w` of a PoseStamped.
        positive: component of the quaternion that is kept positive before its axis is taken, so
            that an orientation near half a turn never changes sign.
    """

    topic: str
    type: Literal["sensor_msgs/msg/JointState", "geometry_msgs/msg/PoseStamped"]
    values: dict[str, str]
    age: Age
    frame_id: str = ""
    positive: Literal["w", "x", "y", "z"] = "w"
    qos: Qos = Qos()


class Feedback(_Part, frozen=True):
    """What the guard measures by itself: joints, and the hand's pose where a topic gives it."""

    joint_states: str
    age: Age
    pose: str = ""
    qos: Qos = Qos()


class Action(_Part, frozen=True):
    """What the policy must say, and what that means here.

    Attributes:
        names, rotation, gripper, rate_hz: compared with the policy's `ActionSpec`, word by word.
        kind: `delta_eef` (metres and radians per step), `twist` (per second), `joint_position`,
            or `joint_delta` (per step).
        scale: physical size of 1.0 of each value but the gripper's.
        columns: which action value drives which axis or joint, by place in `names`.
        gripper_column: place of the gripper's value; null when there is none.
    """

    names: tuple[str, ...]
    rotation: str
    gripper: str
    rate_hz: float
    kind: Literal["delta_eef", "twist", "joint_position", "joint_delta"]
    scale: tuple[float, ...]
    columns: tuple[int, ...]
    gripper_column: int | None = None


class Gripper(_Part, frozen=True):
    """The gripper: a joint that the policy's node commands by `trajectory_msgs/JointTrajectory`.

    Attributes:
        via: how the guard passes it on: the same `trajectory`, or the `action` of type
            control_msgs/GripperCommand, sent whenever the position changes.
        topic: what the policy's node publishes; the guard listens.
        guarded_topic: what the guard publishes; the robot listens.
        open_at, closed_at: the action's value for an open and a closed hand.
        open_position, closed_position: the joint's positions there.
        binary: open or close fully, whichever end is nearer.
        move_s: time that a full stroke takes.
        max_effort: of an action's goal, N; 0 leaves it to the gripper.
    """

    joint: str
    topic: str
    guarded_topic: str
    open_at: float
    closed_at: float
    open_position: float
    closed_position: float
    binary: bool
    move_s: float
    via: Literal["trajectory", "action"] = "trajectory"
    max_effort: float = 0.0


class Axis(_Part, frozen=True):
    """Limits of a speed: of the hand (m/s or rad/s), or of its derivatives."""

    velocity: float
    acceleration: float
    jerk: float


class Joint(Axis, frozen=True):
    """Limits of one joint."""

    lower: float
    upper: float


class Box(_Part, frozen=True):
    """Where the hand may be, in `command.frame_id`."""

    lower: tuple[float, float, float]
    upper: tuple[float, float, float]


class Limits(_Part, frozen=True):
    """Every limit of the robot. There is no such thing as no limit.

    Attributes:
        margin: how far beyond a limit, as a part of it, an action is clamped with a warning;
            beyond that its whole chunk is refused.
        linear, angular: of the hand, for twist commands.
        joints: of every commanded joint, for trajectory commands.
        workspace: a box, or the words `joint limits only` for an arm that no topic gives a pose of.
    """

    margin: float
    workspace: Box | Literal["joint limits only"]
    linear: Axis | None = None
    angular: Axis | None = None
    joints: dict[str, Joint] = {}


class Command(_Part, frozen=True):
    """How the robot is driven.

    Attributes:
        kind: `twist` (geometry_msgs/TwistStamped), `trajectory` (trajectory_msgs/JointTrajectory).
        topic: what the policy's node publishes; the guard listens.
        guarded_topic: what the guard publishes; the robot listens.
        joints: commanded joints, in the controller's order.
        lookahead: points of a trajectory; the robot halts at its end when nothing follows.
        age: of a command that the guard lets pass; silence for `max_ms` is a fault.
        safe_action: `hold_measured` (stay where the joints were measured), `zero_twist`, or `stop`
            (a zero twist, or an empty trajectory, upon which the controller holds).
        latch_after: faults in a row after which only an explicit reset lets anything pass.
    """

    kind: Literal["twist", "trajectory"]
    topic: str
    guarded_topic: str
    frame_id: str
    age: Age
    safe_action: Literal["hold_measured", "zero_twist", "stop"]
    latch_after: int
    joints: tuple[str, ...] = ()
    lookahead: int = 2


class Execution(_Part, frozen=True):
    """How chunks become motion.

    Attributes:
        mode: `sequential` runs `execute` rows, looks again, and waits for the answer; `overlap`
            asks while rows are left and joins the new chunk where it is due.
        execute: rows before the next look; null asks the policy, and where it does not say takes
            the whole chunk, or half of it (overlap).
        blend_rows: rows over which a new chunk takes over from the old one (overlap).
        freeze_rows: rows of the old chunk that are kept as they are at a seam (overlap).
        settle_ms: a look must be so much younger than the last command (sequential).
        deadline_ms: an answer that takes longer is a missed deadline, and dropped.
        hang_s: an answer that takes longer is a hang: the node goes to its error state.
    """

    mode: Literal["sequential", "overlap"]
    deadline_ms: float
    hang_s: float
    execute: int | None = None
    blend_rows: int = 0
    freeze_rows: int = 0
    settle_ms: float = 0.0


class Contract(_Part, frozen=True):
    """One robot.

    Attributes:
        skew_ms: pictures and state of one observation may lie so far apart.
        rate_hz: commands per second.
    """

    schema: Literal[1]
    robot: str
    rate_hz: float
    skew_ms: float
    cameras: tuple[Camera, ...]
    state: tuple[State, ...]
    feedback: Feedback
    action: Action
    command: Command
    limits: Limits
    execution: Execution
    gripper: Gripper | None = None
    allow_unstamped: bool = False

    @property
    def period_s(self) -> float:
        """Time between two commands."""
        return 1.0 / self.rate_hz
