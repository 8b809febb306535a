"""Recording beside control: nothing waits, nothing is quietly lost, whatever the disk does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from policy.replay import recorder as module
from policy.replay.bag_writer import BagWriter
from policy.replay.layout import layout_for
from policy.replay.open import Options, open_episode
from policy.replay.recorder import Recorder
from policy.replay.redact import redact
from policy.replay.types import Decision
from tests.policy.replay import makers

LAYOUT = layout_for(makers.OBSERVATION, makers.SPEC, {view: (32, 32) for view in makers.VIEWS})
NS = 1_000_000_000


def record(recorder: Recorder, steps: int, begin: int = 0) -> int:
    """Take some moments down; how many messages were taken."""
    taken = 0
    looks, rows = makers.looks(steps), makers.actions(steps)
    for i in range(steps):
        now = NS + (begin + i) * 50_000_000
        if i + begin == 0:
            taken += recorder.instruction(makers.WORDS, now)
        for view, image in zip(makers.VIEWS, looks[i].images, strict=True):
            taken += recorder.image(view, image, now)
        taken += recorder.state(looks[i].state, now)
        taken += recorder.decision(decision(i, now), now)
        taken += recorder.rows(rows[i : i + 1], now)
    return taken


def decision(number: int, now: int) -> Decision:
    return Decision(
        stamp_s=now * 1e-9,
        episode=7,
        number=number,
        after=number - 1 if number else None,
        instruction=makers.WORDS,
        actions=makers.actions(4, number).tolist(),
        kept=[[0, 3], [1]],
        images=[now, now],
        states=[now],
    )


def test_a_recording_reads_back_exactly(tmp_path):
    with Recorder(tmp_path / "bag", LAYOUT) as recorder:
        record(recorder, 6)
    found = open_episode(tmp_path / "bag")
    steps, looks = list(found.steps()), makers.looks(6)
    assert found.info.observation == makers.OBSERVATION
    assert found.info.instruction == makers.WORDS
    assert len(steps) == 6
    assert not found.losses.any
    for i, step in enumerate(steps):
        np.testing.assert_array_equal(step.look().images[1], looks[i].images[1])
        np.testing.assert_array_equal(step.look().state, looks[i].state)
        np.testing.assert_array_equal(step.rows[0], makers.actions(6)[i])
        np.testing.assert_array_equal(step.decision.chunk, makers.actions(4, i))
        assert step.decision.kept == [[0, 3], [1]]


def test_other_tools_read_it_too(tmp_path):
    """`rosbags` with its own index, message definitions included; `mcap` with its checksums."""
    from mcap.reader import make_reader
    from rosbags.highlevel import AnyReader

    with Recorder(tmp_path / "bag", LAYOUT) as recorder:
        taken = record(recorder, 5)
    with AnyReader([tmp_path / "bag"]) as reader:
        assert reader.message_count == taken
        kinds = {c.topic: c.msgtype for c in reader.connections}
        assert kinds["/front/image_raw"] == "sensor_msgs/msg/Image"
        connection, _, raw = next(
            reader.messages([c for c in reader.connections if "front" in c.topic])
        )
        assert reader.deserialize(raw, connection.msgtype).encoding == "rgb8"
    with recorder.folder.joinpath("bag_0.mcap").open("rb") as file:
        assert sum(1 for _ in make_reader(file, validate_crcs=True).iter_messages()) == taken


def test_the_result_stands_in_the_recording(tmp_path):
    recorder = Recorder(tmp_path / "bag", LAYOUT)
    record(recorder, 2)
    health = recorder.close({"outcome": "success"})
    assert health.state == "closed"
    assert health.bytes_written == recorder.folder.joinpath("bag_0.mcap").stat().st_size
    assert open_episode(tmp_path / "bag").info.facts["outcome"] == "success"
    assert not recorder.rows(makers.actions(1), NS)  # closed is closed
    assert recorder.health().dropped == 1


@pytest.mark.parametrize("size", [32, 33])
def test_mosaic_shows_light_and_no_face(size):
    image = np.random.default_rng(0).integers(0, 256, (size, size + 8, 3), np.uint8)
    drawn = redact(image, "mosaic")
    assert drawn.shape == image.shape
    assert abs(float(drawn.mean()) - float(image.mean())) < 2
    assert len(np.unique(drawn.reshape(-1, 3), axis=0)) <= 12 * 12
    assert redact(image, "none") is image


@pytest.mark.parametrize("redaction", ["mosaic", "drop"])
def test_redacted_pictures_never_reach_the_disk(tmp_path, redaction):
    with Recorder(tmp_path / "bag", LAYOUT, redaction=redaction) as recorder:
        record(recorder, 3)
    content = (tmp_path / "bag/bag_0.mcap").read_bytes()
    assert makers.looks(3)[1].images[0].tobytes()[:300] not in content
    assert makers.WORDS.encode() in content
    if redaction == "mosaic":
        assert len(list(open_episode(tmp_path / "bag").steps())) == 3


class Disk(BagWriter):
    """A disk that stops in the middle of a write until it is told to go on."""

    def __init__(self, folder, layout):
        self.go = threading.Event()
        super().__init__(folder, layout)

    def write(self, *args):
        self.go.wait()
        super().write(*args)


@pytest.mark.alone
def test_control_never_waits_for_a_disk_that_hangs(tmp_path, monkeypatch):
    """F54: the queue is bounded, and the heartbeat on bytes tells."""
    monkeypatch.setattr(module, "STALLED_S", 0.2)
    disks = []

    def open_bag(folder, layout):
        disks.append(Disk(folder, layout))
        return disks[0]

    recorder = Recorder(tmp_path / "bag", LAYOUT, queue_bytes=20_000, open_bag=open_bag)
    began = time.perf_counter()
    record(recorder, 20)
    per_message_ms = (time.perf_counter() - began) / 101 * 1e3
    assert per_message_ms < 5.0
    assert recorder.health().state == "recording"  # not yet: it may be slow
    time.sleep(0.3)
    stalled = recorder.health()
    assert stalled.state == "stalled"
    assert "no byte written" in stalled.message
    assert stalled.dropped > 0
    assert stalled.waiting * 256 < 20_000
    disks[0].go.set()
    assert recorder.close().state == "closed"
    assert list(open_episode(tmp_path / "bag").steps())


def test_an_idle_recorder_is_not_stalled(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "STALLED_S", 0.05)
    with Recorder(tmp_path / "bag", LAYOUT) as recorder:
        time.sleep(0.2)
        assert recorder.health().state == "recording"


def test_a_disk_that_never_answers_does_not_hold_the_end_up(tmp_path):
    disks = []

    def open_bag(folder, layout):
        disks.append(Disk(folder, layout))
        return disks[0]

    recorder = Recorder(tmp_path / "bag", LAYOUT, open_bag=open_bag)
    record(recorder, 1)
    began = time.monotonic()
    assert recorder.close(timeout_s=0.2).state == "degraded"
    assert time.monotonic() - began < 2.0
    disks[0].go.set()


def test_a_message_that_cannot_be_encoded_is_dropped_alone(tmp_path, caplog):
    with Recorder(tmp_path / "bag", LAYOUT) as recorder:
        record(recorder, 2)
        recorder.put("/broken", "std_msgs/msg/String", NS, lambda: 1 / 0)
        record(recorder, 2, begin=2)
        while recorder.health().waiting:
            time.sleep(0.01)
        assert recorder.health().dropped == 1
    assert "/broken" in caplog.text
    assert len(list(open_episode(tmp_path / "bag").steps())) == 4


FULL = """
import resource, sys, time
from pathlib import Path
import tests.policy.replay.test_recorder as t
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
recorder = t.Recorder(Path(sys.argv[1]), t.LAYOUT)
taken = []
for i in range(120):
    taken.append(t.record(recorder, 1, begin=i))
    while i == 10 and sum(f.stat().st_size for f in recorder.folder.iterdir()) < 50_000:
        time.sleep(0.01)  # a chunk is on the disk, however busy the machine is
    time.sleep(0.02)
health = recorder.close()
print(health.state, len(taken), health.dropped, health.message, sep="|")
"""


def test_a_full_disk_degrades_recording_and_nothing_else(tmp_path):
    """F55: the kernel refuses to let the file grow; control goes on, what is there stays whole."""
    bag = tmp_path / "bag"
    done = run(FULL, str(bag), "300000")
    state, moments, dropped, message = done.stdout.strip().split("|")
    assert state == "degraded"
    assert moments == "120"
    assert int(dropped) > 0
    assert "recording stopped" in message
    assert "control goes on" in message
    assert done.stderr.count("recording stopped") == 1
    found = open_episode(bag, 0, Options(recover=True))
    steps = list(found.steps())
    assert 5 < len(steps) < 120
    assert found.losses.seconds == 0.0  # cut at a whole chunk: nothing is torn
    np.testing.assert_array_equal(steps[3].look().images[0], makers.looks(1)[0].images[0])


KILLED = """
import sys, time
from pathlib import Path
import tests.policy.replay.test_recorder as t
recorder = t.Recorder(Path(sys.argv[1]), t.LAYOUT)
i = 0
while True:
    t.record(recorder, 1, begin=i)
    i += 1
    time.sleep(0.01)
    if recorder.health().bytes_written > 400_000:
        print("go", flush=True)
"""


def test_a_killed_recorder_leaves_a_readable_recording(tmp_path):
    bag = tmp_path / "bag"
    child = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(bag)], stdout=subprocess.PIPE, text=True, env=env()
    )
    child.stdout.readline()
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    found = open_episode(bag, 0, Options(recover=True))
    steps = list(found.steps())
    assert len(steps) > 20
    assert found.losses.counts["without_metadata"] == 1
    assert found.losses.counts["cut_files"] == 1
    np.testing.assert_array_equal(steps[-1].look().images[0], makers.looks(1)[0].images[0])


def env() -> dict[str, str]:
    from tests.house import rules

    return {**os.environ, "PYTHONPATH": str(rules.ROOT)}


def run(code: str, *args: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", code, *args],
        capture_output=True,
        text=True,
        env=env(),
        timeout=60,
        check=True,
    )
