"""Damaged recordings: one clear sentence, or a counted recovery; never a quiet half.

Files are written by the libraries that everybody uses and then really damaged.
"""

from __future__ import annotations

import json
import os
import struct

import numpy as np
import pytest

from policy.replay.open import Options, open_episode
from policy.replay.types import DamagedError, ReplayError
from tests.policy.replay import makers

STEPS = 40


def options(recover: bool = False) -> Options:
    return Options(contract=makers.contract(), recover=recover)


def storage_file(bag):
    return next(path for path in bag.iterdir() if path.suffix in (".mcap", ".db3"))


def cut(path, share: float) -> None:
    os.truncate(path, int(path.stat().st_size * share))


def chunked(folder, steps: int = STEPS, chunk: int = 40_000):
    """A bag of many chunks, by the `mcap` library, without an index of chunks in metadata.yaml."""
    from mcap.writer import CompressionType, Writer

    folder.mkdir()
    path = folder / "bag_0.mcap"
    with path.open("wb") as file:
        writer = Writer(file, chunk_size=chunk, compression=CompressionType.ZSTD)
        writer.start("ros2")
        channels = {}
        from policy.replay.messages import text_message

        words = ("/instruction", "std_msgs/msg/String", text_message(makers.WORDS), 1)
        moments = (message for i in range(steps) for message in makers.sent(i)[1])
        for topic, kind, data, log_ns in (words, *moments):
            if topic not in channels:
                schema = writer.register_schema(kind, "ros2msg", b"")
                channels[topic] = writer.register_channel(topic, "cdr", schema)
            writer.add_message(channels[topic], log_ns, bytes(data), log_ns)
        writer.finish()
    return path


def chunk_offsets(path) -> list[int]:
    """Where the content of every chunk begins."""
    from mcap.reader import make_reader

    with path.open("rb") as file:
        indices = make_reader(file).get_summary().chunk_indexes
    return sorted(index.chunk_start_offset for index in indices)


# F51: cut in the middle of writing.


def test_a_cut_mcap_is_one_clear_error(tmp_path):
    bag = makers.write_bag(tmp_path / "bag", STEPS)
    cut(storage_file(bag), 0.6)
    with pytest.raises(DamagedError, match=r"is cut after .* bytes.*--recover"):
        open_episode(bag, 0, options())


def test_a_cut_mcap_is_read_to_the_cut_and_says_how_much_is_lost(tmp_path):
    path = chunked(tmp_path / "bag")
    whole = list(open_episode(path, 0, options()).steps())
    cut(path, 0.6)
    found = open_episode(path, 0, options(recover=True))
    steps = list(found.steps())
    assert 0.3 * STEPS < len(steps) < 0.8 * STEPS
    for step, wanted in zip(steps, whole, strict=False):
        np.testing.assert_array_equal(step.look().images[0], wanted.look().images[0])
    assert found.losses.counts["cut_files"] == 1
    assert found.losses.seconds > 0
    assert "is cut after" in found.losses.notes[0]


def test_metadata_tells_the_whole_loss_of_a_cut_bag(tmp_path):
    bag = makers.write_bag(tmp_path / "bag", STEPS, "sqlite3")
    whole_s = open_episode(bag, 0, options()).info.duration_s
    cut(storage_file(bag), 0.5)
    found = open_episode(bag, 0, options(recover=True))
    steps = list(found.steps())
    assert 0 < len(steps) < STEPS
    read_s = steps[-1].stamp_s - steps[0].stamp_s
    assert found.losses.seconds == pytest.approx(whole_s - read_s, abs=0.2)


def test_a_cut_sqlite_bag_is_one_clear_error(tmp_path):
    bag = makers.write_bag(tmp_path / "bag", STEPS, "sqlite3")
    cut(storage_file(bag), 0.5)
    with pytest.raises(DamagedError, match="--recover"):
        open_episode(bag, 0, options())


@pytest.mark.parametrize("keep", [0, 4, 8, 30, 200])
def test_next_to_nothing_is_left(tmp_path, keep):
    path = chunked(tmp_path / "bag", 4)
    os.truncate(path, keep)
    with pytest.raises(DamagedError):
        open_episode(path, 0, options())
    with pytest.raises(ReplayError):  # a topic that was not recorded, then
        open_episode(path, 0, options(recover=True))


# F52: no metadata.yaml.


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_a_bag_without_metadata_is_read_and_noted(tmp_path, storage):
    bag = makers.write_bag(tmp_path / "bag", 6, storage)
    (bag / "metadata.yaml").unlink()
    found = open_episode(bag, 0, options())
    assert len(list(found.steps())) == 6
    assert found.losses.counts == {"without_metadata": 1}
    assert "ros2 bag reindex" in found.losses.notes[0]


@pytest.mark.parametrize("text", ["", "- 1", "!!python/object/apply:os.getcwd []", "a: [", "a: 1"])
def test_metadata_that_rosbag2_did_not_write_is_refused(tmp_path, text):
    bag = makers.write_bag(tmp_path / "bag", 2)
    (bag / "metadata.yaml").write_text(text)
    with pytest.raises(ReplayError, match=r"metadata\.yaml"):
        open_episode(bag, 0, options())


def test_a_file_that_metadata_names_is_missing(tmp_path):
    bag = makers.write_bag(tmp_path / "bag", 2)
    storage_file(bag).unlink()
    with pytest.raises(DamagedError, match="lacks"):
        open_episode(bag, 0, options())


# F53: corrupt chunk, order, stamps.


def test_a_corrupt_chunk_costs_one_chunk(tmp_path):
    path = chunked(tmp_path / "bag")
    offsets = chunk_offsets(path)
    assert len(offsets) > 6
    with path.open("r+b") as file:
        file.seek(offsets[3] + 400)
        file.write(b"\xff" * 64)
    with pytest.raises(DamagedError, match=r"chunk .* is corrupt.*--recover"):
        open_episode(path, 0, options())
    found = open_episode(path, 0, options(recover=True))
    steps = list(found.steps())
    assert found.losses.counts["corrupt_chunks"] == 1
    assert 0 < found.losses.seconds < 1.0
    assert STEPS - 12 < len(steps) < STEPS
    assert steps[-1].stamp_s == pytest.approx(1.0 + (STEPS - 1) * 0.05)


def test_a_flipped_bit_that_decompresses_is_found_by_its_checksum(tmp_path):
    from policy.replay.bag_writer import BagWriter

    writer = BagWriter(tmp_path / "bag")
    for i in range(4):
        for topic, kind, data, log_ns in makers.sent(i)[1]:
            writer.write(topic, kind, data, log_ns)
    writer.close()
    content = bytearray(writer.path.read_bytes())
    picture = makers.looks(4)[2].images[0].tobytes()
    at = content.index(picture)
    content[at + 100] ^= 1
    writer.path.write_bytes(content)
    with pytest.raises(DamagedError, match="crc"):
        open_episode(writer.path, 0, options())


def test_messages_out_of_order_are_sorted(tmp_path):
    def shuffle(messages):
        rng = np.random.default_rng(3)
        places = np.argsort(np.arange(len(messages)) + rng.uniform(0, 20, len(messages)))
        return [messages[i] for i in places]

    plain = makers.write_bag(tmp_path / "plain", STEPS)
    mixed = makers.write_bag(tmp_path / "mixed", STEPS, order=shuffle)
    wanted = [s.stamp_s for s in open_episode(plain, 0, options()).steps()]
    found = open_episode(mixed, 0, options())
    assert [s.stamp_s for s in found.steps()] == wanted
    assert not found.losses.any


def test_messages_far_out_of_order_are_counted(tmp_path):
    def late(messages):
        return [*messages[10:], *messages[:10]]

    found = open_episode(makers.write_bag(tmp_path / "b", 80, order=late), 0, options())
    steps = list(found.steps())
    assert found.losses.counts["out_of_order"] > 0
    assert len(steps) >= 76
    stamps = [step.stamp_s for step in steps]
    assert stamps == sorted(stamps)


def test_stamps_that_roll_back_are_dropped_as_they_are_live(tmp_path):
    def roll(messages):
        rolled = []
        for number, (topic, kind, data, log_ns) in enumerate(messages):
            if topic == "/front" and 20 < number < 40:
                data = data[:4] + struct.pack("<iI", 1, 7) + data[12:]
            rolled.append((topic, kind, data, log_ns))
        return rolled

    found = open_episode(makers.write_bag(tmp_path / "bag", 20, order=roll), 0, options())
    steps = list(found.steps())
    assert len(steps) < 20
    assert found.losses.counts["image_dropped"] > 0
    assert any("front" in note for note in found.losses.notes)


def test_a_message_that_cannot_be_decoded_is_counted(tmp_path):
    def spoil(messages):
        return [
            (t, k, d[:9] if t == "/wrist" and n == 13 else d, log)
            for n, (t, k, d, log) in enumerate(messages)
        ]

    found = open_episode(makers.write_bag(tmp_path / "bag", 6, order=spoil), 0, options())
    assert len(list(found.steps())) == 5
    assert found.losses.counts == {"undecodable": 1}


def test_a_picture_of_another_size_is_dropped_by_the_contract(tmp_path):
    from policy.replay.messages import image_message

    def swap(messages):
        small = makers.frame(1, 16)
        return [
            (t, k, bytes(image_message(small, 1_100_000_000)) if (t, n) == ("/wrist", 13) else d, g)
            for n, (t, k, d, g) in enumerate(messages)
        ]

    found = open_episode(makers.write_bag(tmp_path / "bag", 6, order=swap), 0, options())
    assert len(list(found.steps())) == 5
    assert found.losses.counts == {"image_dropped": 1}
    assert "16 x 16" in found.losses.notes[0]


# F57: LeRobot data sets.


@pytest.mark.parametrize(
    ("version", "said"),
    [
        ("v1.6", "convert_dataset_v1_to_v2"),
        ("v2.0", "convert_dataset_v20_to_v21"),
        ("v9.0", "update LeanVLA"),
        (None, "unknown"),
    ],
)
def test_another_version_is_refused_with_its_converter(tmp_path, version, said):
    root = makers.write_lerobot21(tmp_path / "set")
    edit_info(root, codebase_version=version) if version else edit_info(
        root, drop="codebase_version"
    )
    with pytest.raises(ReplayError, match=said):
        open_episode(root)


def edit_info(root, drop=None, **new) -> None:
    path = root / "meta/info.json"
    info = {k: v for k, v in json.loads(path.read_text()).items() if k != drop}
    path.write_text(json.dumps({**info, **new}))


def test_a_missing_video_refuses_the_episode(tmp_path):
    root = makers.write_lerobot21(tmp_path / "set")
    next(root.rglob("episode_000001.mp4")).unlink()
    assert open_episode(root, 0)
    with pytest.raises(DamagedError, match=r"episode_000001\.mp4: video is missing"):
        open_episode(root, 1)


@pytest.mark.parametrize("frames", [4, 9])
def test_a_frame_count_that_differs_refuses_the_episode(tmp_path, frames):
    root = makers.write_lerobot21(tmp_path / "set", (6,))
    makers.write_video(next(root.rglob("*.mp4")), frames, 20, 0)
    if frames > 6:  # longer videos are what v3.0 is made of: only what belongs here is read
        assert len(list(open_episode(root).steps())) == 6
        return
    with pytest.raises(DamagedError, match=r"frame count mismatch: 4 frames .* 6 rows"):
        open_episode(root)


def test_rows_that_differ_from_the_description_refuse_the_episode(tmp_path):
    root = makers.write_lerobot21(tmp_path / "set", (6,))
    lines = root / "meta/episodes.jsonl"
    lines.write_text(lines.read_text().replace('"length": 6', '"length": 7'))
    with pytest.raises(DamagedError, match="has 6 rows, its description says 7"):
        open_episode(root)


def test_episodes_that_are_not_all_described(tmp_path):
    root = makers.write_lerobot21(tmp_path / "set")
    edit_info(root, total_episodes=5)
    with pytest.raises(DamagedError, match="says 5 episodes, 2 are described"):
        open_episode(root)


@pytest.mark.parametrize("what", ["parquet", "mp4", "info.json", "episodes.jsonl"])
def test_a_cut_file_of_a_data_set_is_named(tmp_path, what):
    root = makers.write_lerobot21(tmp_path / "set", (30,))
    path = next(p for p in sorted(root.rglob("*")) if p.name.endswith(what))
    cut(path, 0.5)
    with pytest.raises(DamagedError, match=path.name.replace(".", r"\.")):
        open_episode(root)


def test_a_path_that_leads_out_of_the_data_set_is_refused(tmp_path):
    root = makers.write_lerobot21(tmp_path / "set")
    edit_info(root, data_path="../../{episode_index}.parquet")
    with pytest.raises(ReplayError, match="leads out"):
        open_episode(root)
    edit_info(root, data_path="{episode_index.__class__}")
    with pytest.raises(DamagedError):
        open_episode(root)


# HDF5.


def test_a_cut_hdf5_is_named(tmp_path):
    path = makers.write_hdf5(tmp_path / "demos.hdf5", steps=40)
    cut(path, 0.5)
    with pytest.raises(DamagedError, match=r"demos\.hdf5"):
        list(step.look() for step in open_episode(path).steps())


def test_hdf5_arrays_of_different_lengths_are_refused(tmp_path):
    import h5py

    path = makers.write_hdf5(tmp_path / "demos.hdf5")
    with h5py.File(path, "r+") as file:
        actions = file["data/demo_0/actions"][:-2]
        del file["data/demo_0/actions"]
        file["data/demo_0/actions"] = actions
    with pytest.raises(DamagedError, match="4 actions and 6 of agentview_rgb"):
        open_episode(path)


def test_hdf5_without_pictures_says_how_to_render_them(tmp_path):
    import h5py

    path = makers.write_hdf5(tmp_path / "demos.hdf5")
    with h5py.File(path, "r+") as file:
        del file["data/demo_0/obs/agentview_rgb"], file["data/demo_0/obs/eye_in_hand_rgb"]
    with pytest.raises(ReplayError, match="dataset_states_to_obs"):
        open_episode(path)
