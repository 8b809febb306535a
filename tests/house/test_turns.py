"""A test that wants to be alone waits for the others, and nobody overtakes it."""

from __future__ import annotations

import fcntl
import threading

from tests.turns import Turns


def _taker(folder, name, seen, *, alone):
    """A worker's test, as a thread: what it holds, it holds until `leave` is set."""
    leave = threading.Event()

    def work():
        with Turns(folder).take(alone=alone):
            seen.append(name)
            leave.wait(10.0)
            seen.append(f"{name} leaves")

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread, leave


def _wait_for(condition):
    pause = threading.Event()
    for _ in range(500):
        if condition():
            return
        pause.wait(0.01)
    raise TimeoutError("it did not happen in 5 s")


def test_others_share_and_one_who_is_alone_is_alone(tmp_path):
    seen = []
    first = _taker(tmp_path, "a", seen, alone=False)
    second = _taker(tmp_path, "b", seen, alone=False)
    _wait_for(lambda: len(seen) == 2)  # side by side
    quiet = _taker(tmp_path, "alone", seen, alone=True)
    _wait_for(lambda: _held(tmp_path / "door"))
    late = _taker(tmp_path, "late", seen, alone=False)
    first[1].set()
    first[0].join(5.0)
    assert seen[2:] == ["a leaves"]  # b is still there
    second[1].set()
    _wait_for(lambda: "alone" in seen)
    late[0].join(0.1)
    assert seen[3:] == ["b leaves", "alone"]
    quiet[1].set()
    late[1].set()
    late[0].join(5.0)
    assert seen[5:] == ["alone leaves", "late", "late leaves"]


def _held(path):
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
