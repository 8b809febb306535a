from __future__ import annotations

import contextlib
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.rollout.simulator import Simulator, SimulatorLostError
from sim.rollout.types import Deadlines, Source
from sim.suites.base import EpisodeStart, StepResult
from sim.suites.remote import launch
from sim.suites.remote.suite import RemoteSuite, RemoteSuiteError
from sim.suites.remote.wire import MAX_BYTES, WireError, receive, send
from tests.sim.fakes import FakeSuite
from tests.sim.remote_fakes import SPEC, remote_suite

LAUNCH = Path(launch.__file__)
ROOT = LAUNCH.parents[3]


def walk(suite: RemoteSuite) -> None:
    for _ in range(3):
        suite.step(np.zeros(1))


def echo(message: object) -> object:
    left, right = socket.socketpair()
    with left, right:
        send(left, message)
        return receive(right)


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int32", "int64", "float32", "float64"])
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3, 3)])
def test_arrays_travel_unchanged(dtype: str, shape: tuple[int, ...]) -> None:
    array = np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(dtype)
    back = echo({"a": array})["a"]
    assert (back.dtype, back.shape) == (array.dtype, shape)
    assert np.array_equal(back, array)
    assert back.flags.writeable


def test_objects_do_not_travel() -> None:
    with pytest.raises(NotImplementedError, match="object cannot travel"):
        echo(np.array([print], object))


@given(st.binary(max_size=64))
def test_noise_is_refused(noise: bytes) -> None:
    left, right = socket.socketpair()
    with left, right:
        left.sendall(struct.pack(">I", len(noise)) + noise)
        left.close()
        with contextlib.suppress(WireError):
            receive(right)


def test_arrays_that_lie_about_themselves_are_refused() -> None:
    head = msgspec.msgpack.encode(("uint8", (1000, 1000)))
    ext = msgspec.msgpack.Ext(1, struct.pack(">I", len(head)) + head + b"12")
    with pytest.raises(WireError, match="in 2 bytes"):
        echo(ext)


def test_a_giant_is_refused_before_memory_is_taken() -> None:
    left, right = socket.socketpair()
    with left, right:
        left.sendall(struct.pack(">I", MAX_BYTES + 1))
        with pytest.raises(WireError, match="at most"):
            receive(right)


def test_a_remote_suite_is_the_suite() -> None:
    here, there = FakeSuite(), remote_suite()
    try:
        for seed in (3, 4):
            assert there.reset(seed) == EpisodeStart(*here.reset(seed))
            there.set_instruction("go elsewhere")
            here.set_instruction("go elsewhere")
            assert there.alternative_instruction(seed) == here.alternative_instruction(seed)
            action = here.expert_action()
            assert np.array_equal(there.expert_action(), action)
            assert there.step(action) == StepResult(*here.step(action))
            ours, theirs = here.observe(), there.observe()
            assert theirs.instruction == ours.instruction == "go elsewhere"
            assert np.array_equal(theirs.state, ours.state)
            assert all(map(np.array_equal, theirs.images, ours.images))
            assert np.array_equal(there.render("front", 32), here.render("front", 32))
    finally:
        there.close()
        there.close()


def test_an_exception_leaves_the_worker_alive() -> None:
    suite = remote_suite()
    try:
        with pytest.raises(RemoteSuiteError, match="fake: `reset` raised TypeError"):
            suite.reset("three")  # type: ignore[arg-type]
        assert suite.reset(3).init_state_hash
    finally:
        suite.close()


def test_a_suite_that_cannot_be_made_says_why() -> None:
    with pytest.raises(RemoteSuiteError, match=r"`start` raised AttributeError.*NoSuite"):
        remote_suite("NoSuite")


def test_an_interpreter_that_dies_is_named(tmp_path: Path) -> None:
    python = tmp_path / "python3"
    python.write_text("#!/bin/sh\nexit 7\n")
    python.chmod(0o755)
    with pytest.raises(RemoteSuiteError, match="worker exited with 7 during `start`"):
        RemoteSuite(SPEC, python, "a:b", {})


@pytest.mark.parametrize(
    ("fault", "says"),
    [("kill", "ended by SIGKILL during `step`"), ("exit", "exited with 7"), ("raise", "exploded")],
)
def test_a_worker_that_fails_costs_the_request(fault: str, says: str) -> None:
    suite = remote_suite("FaultySuite", fault=fault, seeds=[1])
    try:
        suite.reset(1)
        with pytest.raises(RemoteSuiteError, match=says):
            walk(suite)
    finally:
        suite.close()


def test_a_worker_that_hangs_is_ended() -> None:
    limits = {"request_timeout_s": 0.5}
    suite = remote_suite("FaultySuite", limits, fault="hang", seeds=[1])
    suite.reset(1)
    with pytest.raises(RemoteSuiteError, match=r"no answer to `step` in 0.5 s"):
        walk(suite)
    with pytest.raises(RemoteSuiteError, match="during `reset`"):
        suite.reset(1)
    suite.close()


def test_the_watchdog_of_a_rollout_ends_the_worker_too(tmp_path: Path) -> None:
    options = {"factory": "FaultySuite", "fault": "hang", "seeds": [1], "pids": str(tmp_path)}
    source = Source("tests.sim.remote_fakes:remote_suite", options)
    simulator = Simulator(source, Deadlines(request=1.5), None)
    try:
        simulator.begin(1, swap=False, film=None)
        with pytest.raises(SimulatorLostError, match="no answer to `advance`"):
            simulator.advance(np.zeros((4, 1), np.float32), None)
        (worker,) = (int(path.name) for path in tmp_path.iterdir())
        assert _ends(worker)
        assert simulator.begin(2, swap=False, film=None).observation.images
    finally:
        simulator.close()


def _ends(process: int) -> bool:
    """Whether it ends within seconds: a kill needs a moment to be carried out."""
    until = time.monotonic() + 10.0
    while _runs(process) and time.monotonic() < until:
        time.sleep(0.05)
    return not _runs(process)


def _runs(process: int) -> bool:
    """Whether it still runs; a zombie that nobody has buried yet does not."""
    try:
        status = Path(f"/proc/{process}/stat").read_text()
    except FileNotFoundError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


@pytest.mark.parametrize("module", ["sim.suites", "sim.suites.remote.serve", "sim.suites.perturb"])
def test_a_worker_sees_all_that_it_imports(module: str) -> None:
    # The interpreter of another environment: nothing of ours but what `RoomFinder` finds.
    code = f"""
import sys
sys.meta_path = [f for f in sys.meta_path if "ditable" not in getattr(f, "__name__", "")]
from runpy import run_path
finder = run_path({str(LAUNCH)!r})["RoomFinder"]({str(ROOT)!r})
sys.meta_path.insert(0, finder)
import {module}
assert finder.find_spec("engines", None) is None
"""
    done = subprocess.run(
        [sys.executable, "-I", "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
