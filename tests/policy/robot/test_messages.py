"""Decoding: golden pixels, every encoding, every way in which a message can lie."""

from __future__ import annotations

import io
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from policy.contract import CompressedImage
from policy.robot.messages import (
    MessageError,
    check_image,
    decode_image,
    decode_state,
    joint_positions,
)
from policy.robot.rotations import axis_angle, normalized, roll_pitch_yaw
from tests.policy.robot.fakes import changed, contract, header, image, joints, jpeg, pose

CAMERA = changed(contract().cameras[0], "encodings", ("rgb8", "bgr8", "rgba8", "bgra8", "mono8"))


def bar(camera=CAMERA):
    """Red, green, blue and grey columns: swapped channels or axes cannot hide."""
    out = np.zeros((camera.height, camera.width, 3), np.uint8)
    for i, colour in enumerate([(200, 10, 20), (10, 200, 20), (10, 20, 200), (90, 90, 90)]):
        out[:, i * camera.width // 4 : (i + 1) * camera.width // 4] = colour
    out[: camera.height // 3, :5] = (255, 0, 255)
    return out


def encoded(pixels, encoding):
    if encoding == "mono8":
        return pixels[..., :1]
    out = pixels[..., ::-1] if encoding.startswith("bgr") else pixels
    if encoding.endswith("a8"):
        out = np.concatenate([out, np.full_like(out[..., :1], 7)], axis=2)
    return out


@pytest.mark.parametrize("pad", [0, 5, 32])
@pytest.mark.parametrize("encoding", CAMERA.encodings)
def test_a_colour_bar_arrives_as_it_was_in_every_encoding_and_padding(encoding, pad):
    message = image(CAMERA, 1.0, encoded(bar(), encoding), encoding, pad=pad)
    seen = decode_image(message, CAMERA)
    wanted = bar() if encoding != "mono8" else np.repeat(bar()[..., :1], 3, axis=2)
    np.testing.assert_array_equal(seen, wanted)
    assert seen.flags.c_contiguous


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, lambda d: np.frombuffer(d, "u1")])
def test_any_buffer_decodes_alike(kind):
    message = image(CAMERA, 1.0, bar())
    message.data = kind(message.data)
    np.testing.assert_array_equal(decode_image(message, CAMERA), bar())


def test_crop_comes_before_the_turn():
    camera = changed(changed(CAMERA, "crop", (10, 20, 40, 60)), "rotate_deg", 90)
    seen = decode_image(image(CAMERA, 1.0, bar()), camera)
    np.testing.assert_array_equal(seen, np.rot90(bar()[10:50, 20:80]))


@pytest.mark.parametrize(
    ("field", "new", "says"),
    [
        ("encoding", "yuv422", "'yuv422' is not accepted; accepted: rgb8, bgr8"),
        ("encoding", "bayer_rggb8", "is not accepted"),
        ("encoding", "32FC1", "is not accepted"),
        ("width", 95, "frame is 95 x 96, the contract says 96 x 96"),
        ("step", 100, "step 100 is below a row of 288"),
        ("step", 289, "step x height is 27744"),
        ("data", b"short", "5 bytes of data, step x height is 27648"),
    ],
)
def test_a_raw_picture_that_lies_is_refused_by_field(field, new, says):
    message = image(CAMERA, 1.0)
    setattr(message, field, new)
    with pytest.raises(MessageError, match=says):
        check_image(message, CAMERA)


def test_a_picture_of_another_frame_is_refused():
    message = image(CAMERA, 1.0)
    message.header.frame_id = "elsewhere"
    with pytest.raises(MessageError, match="frame_id is 'elsewhere', the contract says 'agentview"):
        decode_image(message, CAMERA)


def test_compressed_pictures():
    camera = changed(CAMERA, "type", CompressedImage)
    buffer = io.BytesIO()
    Image.fromarray(bar()).save(buffer, "PNG")
    message = SimpleNamespace(header=header(1.0, camera.frame_id), data=buffer.getvalue())
    np.testing.assert_array_equal(decode_image(message, camera), bar())
    assert decode_image(jpeg(camera, 1.0), camera).shape == (96, 96, 3)
    for data, says in (
        (b"", "0 bytes"),
        (b"GIF89a....", "neither JPEG nor PNG"),
        (buffer.getvalue()[:200], "cannot decompress"),
        (b"\xff\xd8\xff\xe0garbage", "cannot decompress"),
    ):
        message.data = data
        with pytest.raises(MessageError, match=says):
            decode_image(message, camera)
    small = io.BytesIO()
    Image.fromarray(bar()[:40]).save(small, "PNG")
    message.data = small.getvalue()
    with pytest.raises(MessageError, match="frame is 96 x 40"):
        decode_image(message, camera)


def test_joints_are_mapped_by_name():
    source = contract("so101").state[0]
    order = [field.rpartition(".")[0] for field in source.values.values()]
    values = {name: 0.1 * i for i, name in enumerate(order)}
    shuffled = {name: values[name] for name in ["extra", *reversed(order)] if name in values}
    seen = decode_state(joints(1.0, {"extra": 9.0, **shuffled}), source)
    np.testing.assert_allclose(seen, [0.1 * i for i in range(len(order))], rtol=1e-6)
    np.testing.assert_allclose(joint_positions(joints(1.0, shuffled), tuple(order[:2])), [0, 0.1])


def test_joints_that_are_missing_doubled_or_wild_are_refused():
    source = contract("so101").state[0]
    good = {field.rpartition(".")[0]: 0.0 for field in source.values.values()}
    without = {k: v for k, v in good.items() if k != "elbow_flex"}
    with pytest.raises(MessageError, match="'elbow_flex' stands there 0 times among shoulder_pan"):
        decode_state(joints(1.0, without), source)
    twice = joints(1.0, good)
    twice.name.append("elbow_flex")
    twice.position.append(1.0)
    with pytest.raises(MessageError, match="'elbow_flex' stands there 2 times"):
        decode_state(twice, source)
    short = joints(1.0, good)
    short.position.pop()
    with pytest.raises(MessageError, match="6 names, 5 values of position"):
        decode_state(short, source)
    with pytest.raises(MessageError, match=r"not finite: wrist_roll"):
        decode_state(joints(1.0, good | {"wrist_roll": float("nan")}), source)


def test_orientations():
    half = np.sqrt(0.5)
    np.testing.assert_allclose(
        axis_angle(normalized(np.array([0, 0, half, half]))), [0, 0, np.pi / 2]
    )
    np.testing.assert_allclose(axis_angle(np.array([0.0, 0, 0, 1])), [0, 0, 0])
    yaw = roll_pitch_yaw(normalized(np.array([0, 0, half, half])))
    np.testing.assert_allclose(yaw, [0, 0, np.pi / 2])
    near = np.array([0.9999, 0.0, 0.0, -0.0141])
    turned = axis_angle(normalized(near, positive=0))
    assert turned[0] > 3.0  # the axis keeps its sign on both sides of half a turn
    with pytest.raises(ValueError, match="norm 0"):
        normalized(np.zeros(4))
    source = contract().state[0]
    with pytest.raises(MessageError, match="orientation has norm 2"):
        decode_state(pose(1.0, (0, 0, 1), (2.0, 0, 0, 0)), source)
