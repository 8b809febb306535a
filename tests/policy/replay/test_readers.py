"""Every reader gives the same stream: stamps, words, looks, rows."""

from __future__ import annotations

import numpy as np
import pytest

from policy.replay.commands import CommandReader
from policy.replay.messages import (
    TRAJECTORY,
    TWIST,
    decode,
    encode,
    exact,
    header_of,
    rows_message,
    state_message,
    typestore,
)
from policy.replay.open import Options, count_episodes, open_episode
from policy.replay.shards import SCHEMA, Specs
from policy.replay.storage import RawMessage
from policy.replay.types import ReplayError
from tests.policy.replay import makers


def test_lerobot_21(tmp_path):
    root = makers.write_lerobot21(tmp_path / "set")
    assert count_episodes(root) == 2
    found = open_episode(root, 1)
    steps = list(found.steps())
    assert (found.info.layout, found.info.instruction) == ("lerobot v2.1", makers.WORDS)
    assert found.info.observation.views == ("front",)
    assert found.info.observation.state_names == makers.STATE
    assert found.info.action.names == makers.ACTION
    np.testing.assert_array_equal(np.concatenate([s.rows for s in steps]), makers.actions(5, 1))
    assert [round(step.stamp_s, 6) for step in steps] == [0.0, 0.05, 0.1, 0.15, 0.2]
    for number in (4, 0, 2):  # backwards, too: a look is found by its number
        look = steps[number].look()
        np.testing.assert_array_equal(look.state, makers.states(5, 1)[number])
        wanted = makers.frame(10_000 + number * 10).astype(int)
        assert np.abs(look.images[0].astype(int) - wanted).mean() < 6


def test_words_of_the_command_line_override(tmp_path):
    root = makers.write_lerobot21(tmp_path / "set")
    assert open_episode(root, 0, Options(instruction="wave")).info.instruction == "wave"


def test_hdf5(tmp_path):
    path = makers.write_hdf5(tmp_path / "libero.hdf5")
    assert count_episodes(path) == 2
    found = open_episode(path, 1)
    steps = list(found.steps())
    assert found.info.instruction == makers.WORDS
    assert found.info.observation.views == ("agentview_rgb", "eye_in_hand_rgb")
    assert found.info.observation.state_names[0] == "eef x [m]"
    assert len(found.info.observation.state_names) == 8
    assert found.info.action.names[-1] == "gripper [-1 open, +1 close]"
    np.testing.assert_array_equal(steps[3].look().images[0], makers.frame(103))
    assert steps[3].rows.shape == (1, 7)


def test_robomimic_says_no_instruction(tmp_path):
    path = makers.write_hdf5(tmp_path / "robomimic.hdf5", words=None)
    with pytest.raises(ReplayError, match="--instruction"):
        open_episode(path)
    assert open_episode(path, 0, Options(instruction="lift")).info.instruction == "lift"


def test_shards(tmp_path):
    from sim import demos

    assert demos.SCHEMA == SCHEMA
    rows = 7
    arrays = {name: np.zeros((rows, 1), np.float32) for name in demos._ARRAYS}
    looks = makers.looks(rows)
    arrays["frames"] = np.stack([np.stack(look.images) for look in looks])
    arrays["states"], arrays["actions"] = makers.states(rows), makers.actions(rows)
    other = {name: array[:3] for name, array in arrays.items()}
    demos.write_shard(
        tmp_path / "demos-000000000.safetensors",
        [
            demos.Episode("first", "t", 5, "expert", True, other),
            demos.Episode(makers.WORDS, "t", 6, "expert", True, arrays),
        ],
    )
    assert count_episodes(tmp_path) == 2
    specs = Specs(makers.OBSERVATION, makers.SPEC)
    found = open_episode(tmp_path, 1, Options(specs=specs))
    assert found.info.instruction == makers.WORDS
    assert found.info.observation == makers.OBSERVATION
    steps = list(found.steps())
    np.testing.assert_array_equal(steps[6].look().images[1], looks[6].images[1])
    np.testing.assert_array_equal(np.concatenate([s.rows for s in steps]), arrays["actions"])


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_a_robots_bag_through_its_contract(tmp_path, storage):
    """Commands come back as the policy's rows: unscaled joints, the gripper in its range."""
    bag = makers.write_bag(tmp_path / "bag", 8, storage)
    found = open_episode(bag, 0, Options(contract=makers.contract()))
    steps = list(found.steps())
    assert (found.info.instruction, len(steps)) == (makers.WORDS, 8)
    assert not found.losses.any
    for number, (step, look) in enumerate(zip(steps, makers.looks(8), strict=True)):
        np.testing.assert_array_equal(step.look().images[1], look.images[1])
        np.testing.assert_array_equal(step.look().state, look.state)
        np.testing.assert_allclose(step.rows[0], makers.actions(8)[number], rtol=1e-6)


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_a_plain_file_reads_like_its_bag(tmp_path, storage):
    bag = makers.write_bag(tmp_path / "bag", 4, storage)
    file = next(path for path in bag.iterdir() if path.suffix in (".mcap", ".db3"))
    found = open_episode(file, 0, Options(contract=makers.contract()))
    assert len(list(found.steps())) == 4


def test_speeds_come_back_as_the_rows_they_were_made_from():
    from policy.contract_file import read_contract
    from policy.robot.rows import interpret

    contract = read_contract("ros2_ws/src/leanvla_ros/config/tabletop.yaml")
    rows = np.random.default_rng(0).uniform(-1, 1, (5, 7)).astype(np.float32)
    rows[:, 6] = [-1, -1, 1, 1, -1]
    meant, reader, types = interpret(rows, contract), CommandReader(contract), typestore().types
    for row, speed, hand in zip(rows, meant.values, meant.gripper, strict=True):
        vector = types["geometry_msgs/msg/Vector3"]
        twist = types["geometry_msgs/msg/Twist"](vector(*speed[:3]), vector(*speed[3:]))
        message = types[TWIST](header_of(1, "world"), twist)
        gripper = rows_message((contract.gripper.joint,), hand[None], 1, 20.0)
        grip = RawMessage(contract.gripper.topic, TRAJECTORY, 1, gripper)
        assert reader.row(grip) is None
        command = RawMessage(contract.command.topic, TWIST, 2, bytes(encode(message, TWIST)))
        np.testing.assert_allclose(reader.row(command), row, rtol=1e-6)


def test_slack_behind_a_message_is_ignored_and_a_short_message_is_not():
    """As `rclpy.serialization.serialize_message` leaves it."""
    names, values = ("jx", "jy"), np.array([1.5, -2.0], np.float32)
    exact_bytes = state_message(names, values, 7_000_000_005)
    for slack in (0, 3, 4, 8, 40):
        message = decode(exact_bytes + b"\x5f" * slack, "sensor_msgs/msg/JointState")
        assert (message.name, message.position.tolist()) == (["jx", "jy"], [1.5, -2.0])
        assert exact(exact_bytes + b"\x5f" * slack, "sensor_msgs/msg/JointState") == exact_bytes
        assert (message.header.stamp.sec, message.header.stamp.nanosec) == (7, 5)
    for length in (0, 3, 11, len(exact_bytes) - 9):
        with pytest.raises(ReplayError, match="not a sensor_msgs"):
            decode(exact_bytes[:length], "sensor_msgs/msg/JointState")


def test_a_bag_without_contract_asks_for_one(tmp_path):
    bag = makers.write_bag(tmp_path / "bag", 2)
    with pytest.raises(ReplayError, match="--contract"):
        open_episode(bag)


def test_a_missing_topic_is_named_with_what_is_there(tmp_path):
    bag = makers.write_bag(
        tmp_path / "bag", 2, order=lambda m: [each for each in m if each[0] != "/wrist"]
    )
    with pytest.raises(ReplayError, match=r"/wrist was not recorded.*/front"):
        open_episode(bag, 0, Options(contract=makers.contract()))


@pytest.mark.parametrize("what", ["missing", "empty folder", "text file"])
def test_what_is_no_recording_is_refused(tmp_path, what):
    path = tmp_path / "thing"
    if what == "empty folder":
        path.mkdir()
    elif what == "text file":
        path.write_text("hello")
    with pytest.raises(ReplayError, match="no such file" if what == "missing" else "LeRobot"):
        open_episode(path)


@pytest.mark.parametrize("number", [-1, 2, 99])
def test_an_unknown_episode_is_refused(tmp_path, number):
    for path in (
        makers.write_lerobot21(tmp_path / "set"),
        makers.write_hdf5(tmp_path / "demos.hdf5"),
    ):
        with pytest.raises(ReplayError, match=f"episode {number} of 2"):
            open_episode(path, number)
