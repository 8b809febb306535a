"""Standard messages as bytes and back, through `rosbags`: no ROS is needed on either side."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from policy.contract import Image, JointState
from policy.replay.types import DECISION_SCHEMA, Decision, ReplayError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaxtyping import Float, UInt8

STRING = "std_msgs/msg/String"
TRAJECTORY = "trajectory_msgs/msg/JointTrajectory"
TWIST = "geometry_msgs/msg/TwistStamped"
DIAGNOSTICS = "diagnostic_msgs/msg/DiagnosticArray"
NS = 1_000_000_000

_DECISION = msgspec.json.Decoder(Decision)


@lru_cache(maxsize=1)
def typestore() -> Any:
    """The standard types, which are the same in every distribution since Humble."""
    from rosbags.typesys import Stores, get_typestore

    return get_typestore(Stores.ROS2_JAZZY)


def decode(data: bytes, kind: str) -> Any:
    """A message with plain attributes.

    Bytes behind the message are ignored: `rclpy.serialization.serialize_message` leaves some, as
    many as it had guessed too much.

    Raises:
        ReplayError: on an unknown type, or bytes that are no such message.
    """
    return _read(data, kind)[0]


def exact(data: bytes, kind: str) -> bytes:
    """A message without what stands behind it, which stricter readers refuse.

    Raises:
        ReplayError: as `decode`.
    """
    return data[: _read(data, kind)[1]]


def _read(data: bytes, kind: str) -> tuple[Any, int]:
    """The message, and how many bytes it takes."""
    store = typestore()
    if kind not in store.types:
        raise ReplayError(f"messages of type {kind or 'unknown'} cannot be decoded")
    if len(data) < 4 or data[0] != 0 or data[1] not in (0, 1):
        raise ReplayError(f"not a {kind}: no CDR header")
    definition = store.get_msgdef(kind)
    read = definition.deserialize_cdr_le if data[1] else definition.deserialize_cdr_be
    try:
        message, taken = read(memoryview(data)[4:], 0, definition.cls, store)
    # The generated decoders fail in whatever way the bytes make them fail.
    except Exception as error:
        raise ReplayError(f"not a {kind}: {type(error).__name__}") from None
    return message, taken + 4


def encode(message: Any, kind: str) -> memoryview:
    """Bytes of a message of the standard types."""
    return typestore().serialize_cdr(message, kind)


def definition(kind: str) -> tuple[str, str]:
    """The text that describes a type in an MCAP file, and the type's hash."""
    store = typestore()
    return store.generate_msgdef(kind, ros_version=2)[0], store.hash_rihs01(kind)


def header_of(stamp_ns: int, frame_id: str) -> Any:
    """A header with this stamp."""
    types = typestore().types
    stamp = types["builtin_interfaces/msg/Time"](sec=stamp_ns // NS, nanosec=stamp_ns % NS)
    return types["std_msgs/msg/Header"](stamp=stamp, frame_id=frame_id)


def image_message(
    image: UInt8[np.ndarray, "h w 3"], stamp_ns: int, frame_id: str = ""
) -> memoryview:
    """An RGB picture as `sensor_msgs/Image`."""
    return raw_image_message(image, header_of(stamp_ns, frame_id), "rgb8")


def raw_image_message(pixels: UInt8[np.ndarray, "h w c"], header: Any, encoding: str) -> memoryview:
    """Pixels of any byte encoding as `sensor_msgs/Image`, without padding."""
    height, width, channels = pixels.shape
    message = typestore().types[Image](
        header=header,
        height=height,
        width=width,
        encoding=encoding,
        is_bigendian=0,
        step=width * channels,
        data=np.ascontiguousarray(pixels).reshape(-1),
    )
    return encode(message, Image)


def state_message(names: Sequence[str], values: Float[np.ndarray, " s"], stamp_ns: int) -> bytes:
    """Named values as `sensor_msgs/JointState`; float32 survives in its float64 exactly."""
    message = typestore().types[JointState](
        header=header_of(stamp_ns, ""),
        name=list(names),
        position=np.asarray(values, np.float64),
        velocity=np.zeros(0),
        effort=np.zeros(0),
    )
    return bytes(encode(message, JointState))


def rows_message(
    names: Sequence[str], rows: Float[np.ndarray, "k dof"], stamp_ns: int, rate_hz: float
) -> bytes:
    """Action rows as `trajectory_msgs/JointTrajectory`, named by their degrees of freedom."""
    types = typestore().types
    points = []
    for number, row in enumerate(rows):
        at_ns = round(number / rate_hz * NS)
        since = types["builtin_interfaces/msg/Duration"](sec=at_ns // NS, nanosec=at_ns % NS)
        points.append(
            types["trajectory_msgs/msg/JointTrajectoryPoint"](
                positions=np.asarray(row, np.float64),
                velocities=np.zeros(0),
                accelerations=np.zeros(0),
                effort=np.zeros(0),
                time_from_start=since,
            )
        )
    message = types[TRAJECTORY](
        header=header_of(stamp_ns, ""), joint_names=list(names), points=points
    )
    return bytes(encode(message, TRAJECTORY))


def text_message(text: str) -> bytes:
    """Text as `std_msgs/String`."""
    return bytes(encode(typestore().types[STRING](data=text), STRING))


def decision_message(decision: Decision) -> bytes:
    """A decision as JSON in a `std_msgs/String`."""
    return text_message(msgspec.json.encode(decision).decode())


def read_decision(data: bytes) -> Decision:
    """The decision that `decision_message` wrote.

    Raises:
        ReplayError: when it is something else.
    """
    text = decode(data, STRING).data
    try:
        decision = _DECISION.decode(text)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise ReplayError(f"not a decision: {error}") from None
    if decision.schema != DECISION_SCHEMA:
        raise ReplayError(f"decisions of schema {decision.schema}; {DECISION_SCHEMA} is read")
    return decision


def header_ns(data: bytes) -> int:
    """The stamp of a message that begins with a header, without decoding the rest.

    Raises:
        ReplayError: when there are too few bytes.
    """
    if len(data) < 12:
        raise ReplayError("message is shorter than a header")
    order = "little" if data[1] & 1 else "big"
    sec = int.from_bytes(data[4:8], order, signed=True)  # type: ignore[arg-type]
    return sec * NS + int.from_bytes(data[8:12], order)  # type: ignore[arg-type]
