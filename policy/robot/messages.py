"""From messages to arrays, by plain attribute access: rclpy's and a bag reader's look the same.

A field that does not fit is a named error and the message is dropped whole; nothing is guessed.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np

from policy.contract import CompressedImage, JointState
from policy.robot.rotations import axis_angle, normalized, roll_pitch_yaw

if TYPE_CHECKING:
    from collections.abc import Callable

    from jaxtyping import Float32, Float64, UInt8

    from policy.contract import Camera, State

_CHANNELS = {"rgb8": 3, "bgr8": 3, "rgba8": 4, "bgra8": 4, "mono8": 1}
_MAGIC = {b"\xff\xd8\xff": "JPEG", b"\x89PNG": "PNG"}
MAX_COMPRESSED_BYTES = 16 << 20


class MessageError(ValueError):
    """A message that nothing may be done with; says which field and why."""


def stamp_s(message: Any) -> float:
    """The header's stamp, seconds."""
    stamp = message.header.stamp
    return stamp.sec + stamp.nanosec * 1e-9


def check_image(message: Any, camera: Camera) -> None:
    """Refuse by the fields alone, without touching a pixel.

    Raises:
        MessageError: on an encoding, size, step or length that the contract does not promise.
    """
    if camera.frame_id and message.header.frame_id != camera.frame_id:
        raise MessageError(
            f"camera {camera.view}: frame_id is {message.header.frame_id!r}, the contract says "
            f"{camera.frame_id!r}"
        )
    if camera.type == CompressedImage:
        _check_compressed(message, camera)
    else:
        _check_raw(message, camera)


def _check_raw(message: Any, camera: Camera) -> None:
    if message.encoding not in camera.encodings:
        raise MessageError(
            f"camera {camera.view}: encoding {message.encoding!r} is not accepted; accepted: "
            f"{', '.join(camera.encodings)}"
        )
    if (message.width, message.height) != (camera.width, camera.height):
        raise MessageError(
            f"camera {camera.view}: frame is {message.width} x {message.height}, the contract "
            f"says {camera.width} x {camera.height}"
        )
    row = message.width * _CHANNELS[message.encoding]
    if message.step < row:
        raise MessageError(f"camera {camera.view}: step {message.step} is below a row of {row}")
    want = message.step * message.height
    if len(message.data) != want:
        raise MessageError(
            f"camera {camera.view}: {len(message.data)} bytes of data, step x height is {want}"
        )


def _check_compressed(message: Any, camera: Camera) -> None:
    size = len(message.data)
    if not 0 < size <= MAX_COMPRESSED_BYTES:
        raise MessageError(f"camera {camera.view}: {size} bytes, give 1 to {MAX_COMPRESSED_BYTES}")
    head = bytes(memoryview(message.data)[:4])
    if not any(head.startswith(magic) for magic in _MAGIC):
        raise MessageError(
            f"camera {camera.view}: compressed data is neither {' nor '.join(_MAGIC.values())}"
        )


def decode_image(message: Any, camera: Camera) -> UInt8[np.ndarray, "h w 3"]:
    """The frame as the policy's view: RGB, cropped and turned as the contract says.

    Raises:
        MessageError: as `check_image`, and when compressed data cannot be decoded.
    """
    check_image(message, camera)
    compressed = camera.type == CompressedImage
    image = _decompress(message, camera) if compressed else _unpack(message)
    if camera.crop is not None:
        top, left, height, width = camera.crop
        image = image[top : top + height, left : left + width]
    if camera.rotate_deg:
        image = np.rot90(image, camera.rotate_deg // 90)
    return np.ascontiguousarray(image)


def _unpack(message: Any) -> UInt8[np.ndarray, "h w 3"]:
    channels = _CHANNELS[message.encoding]
    flat = np.frombuffer(message.data, np.uint8).reshape(message.height, message.step)
    pixels = flat[:, : message.width * channels].reshape(message.height, message.width, channels)
    if channels == 1:
        return np.repeat(pixels, 3, axis=2)
    return pixels[..., 2::-1] if message.encoding.startswith("bgr") else pixels[..., :3]


def _decompress(message: Any, camera: Camera) -> UInt8[np.ndarray, "h w 3"]:
    from PIL import Image

    try:
        with Image.open(io.BytesIO(bytes(message.data)), formats=tuple(_MAGIC.values())) as image:
            if image.size != (camera.width, camera.height):
                raise MessageError(
                    f"camera {camera.view}: frame is {image.size[0]} x {image.size[1]}, the "
                    f"contract says {camera.width} x {camera.height}"
                )
            return np.asarray(image.convert("RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        if isinstance(error, MessageError):
            raise
        raise MessageError(f"camera {camera.view}: cannot decompress: {error}") from None


def decode_state(message: Any, source: State) -> Float32[np.ndarray, " k"]:
    """The values of one proprioceptive source, in the contract's order.

    Raises:
        MessageError: on a missing joint, arrays that do not fit their names, or a value that is
            not finite.
    """
    if source.frame_id and message.header.frame_id != source.frame_id:
        raise MessageError(
            f"{source.topic}: frame_id is {message.header.frame_id!r}, the contract says "
            f"{source.frame_id!r}"
        )
    if source.type == JointState:
        values = [_joint_field(message, field, source.topic) for field in source.values.values()]
    else:
        values = _pose_values(message.pose, source)
    out = np.array(values, np.float32)
    if not np.isfinite(out).all():
        bad = [n for n, v in zip(source.values, out, strict=True) if not np.isfinite(v)]
        raise MessageError(f"{source.topic}: not finite: {', '.join(bad)}")
    return out


def joint_positions(message: Any, joints: tuple[str, ...]) -> Float64[np.ndarray, " j"]:
    """Measured positions of `joints`, whatever order and company the message has them in.

    Raises:
        MessageError: on a missing joint, or a position that is not finite.
    """
    values = [_joint_field(message, f"{joint}.position", "joint states") for joint in joints]
    out = np.array(values, np.float64)
    if not np.isfinite(out).all():
        raise MessageError("joint states: a measured position is not finite")
    return out


def hand_position(message: Any) -> Float64[np.ndarray, 3]:
    """Measured position of the hand, metres.

    Raises:
        MessageError: when it is not finite.
    """
    point = message.pose.position
    out = np.array([point.x, point.y, point.z], np.float64)
    if not np.isfinite(out).all():
        raise MessageError("hand pose: the measured position is not finite")
    return out


def _joint_field(message: Any, field: str, topic: str) -> float:
    joint, _, part = field.rpartition(".")
    names, values = list(message.name), getattr(message, part)
    if names.count(joint) != 1:
        raise MessageError(
            f"{topic}: joint {joint!r} stands there {names.count(joint)} times among "
            f"{', '.join(names) or 'none'}"
        )
    if len(values) != len(names):
        raise MessageError(f"{topic}: {len(names)} names, {len(values)} values of {part}")
    return float(values[names.index(joint)])


def _pose_values(pose: Any, source: State) -> list[float]:
    fields = [field.partition(".") for field in source.values.values()]
    wanted = {part for part, _, _ in fields}
    parts = {part: _PARTS[part](pose, source) for part in wanted}
    return [float(parts[part]["xyzw".index(axis)]) for part, _, axis in fields]


def _position(pose: Any, source: State) -> Float64[np.ndarray, 3]:
    return np.array([getattr(pose.position, c) for c in "xyz"], np.float64)


def _orientation(pose: Any, source: State) -> Float64[np.ndarray, 4]:
    quat = np.array([getattr(pose.orientation, c) for c in "xyzw"], np.float64)
    try:
        return normalized(quat, "xyzw".index(source.positive))
    except ValueError as error:
        raise MessageError(f"{source.topic}: {error}") from None


_PARTS: dict[str, Callable[[Any, State], np.ndarray]] = {
    "position": _position,
    "axis_angle": lambda pose, source: axis_angle(_orientation(pose, source)),
    "rpy": lambda pose, source: roll_pitch_yaw(_orientation(pose, source)),
    "quaternion": _orientation,
}
