"""Policies for a server under test, a server in its own process, and a server that lies."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from policy.serve.card import Card, metadata_of
from policy.serve.wire import pack, unpack
from policy.types import ActionChunk, ActionSpec, Inference, Observation, ObservationSpec, Timing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).resolve().parents[2]
SEEN = ObservationSpec(("front", "wrist"), ("x_m", "target_m"))
ACTION = ActionSpec(("dx_m",), 4, 20.0, rotation="none", gripper="none")
CARD = Card("fake", "dense", 1.0, SEEN, ACTION, execute=2, rows=4)


class Counting:
    """Says how many queries its memory has seen; obeys words that tests put into its mouth."""

    observation_spec, action_spec, execute = SEEN, ACTION, 2

    def __init__(self, method: str = "dense", keep: float = 1.0) -> None:
        self.method, self.keep = method, keep

    def initial_state(self) -> int:
        return 0

    def infer(self, observation: Observation, state: int) -> Inference:
        word, _, rest = observation.instruction.partition(" ")
        if word == "sleep":
            time.sleep(float(rest))
        if word == "raise":
            raise FloatingPointError("weights are made of cheese")
        if word == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        actions = np.full((4, 1), state, np.float32)
        if word == "nan":
            actions[1, 0] = np.nan
        kept = tuple(np.arange(3, dtype=np.int64) for _ in SEEN.views)
        timing = Timing(5.0, {"vision": 2.0, "head": 1.0}, visual_tokens=8, kept_tokens=6)
        return Inference(ActionChunk(actions, actions / 2, None, kept), state + 1, timing)


def seen(words: str = "go left", episode: int = 0) -> Observation:
    rng = np.random.default_rng(0)
    images = tuple(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8) for _ in SEEN.views)
    return Observation(images, np.array([0.5, -0.5], np.float32), words, 0.0, episode)


@contextlib.contextmanager
def serving(
    *arguments: str, token: str | None = None, policy: str = "tests.policy.served:Counting"
) -> Iterator[tuple[str, subprocess.Popen]]:
    """`leanvla serve` in a process of its own; gives its address."""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    env.pop("LEANVLA_TOKEN", None)
    if token is not None:
        env["LEANVLA_TOKEN"] = token
    verb = ["serve", "--policy", policy, "--port", "0", *arguments]
    process = subprocess.Popen(
        [sys.executable, "-m", "leanvla", *verb],
        env=env,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        address = process.stdout.readline().strip() if process.stdout else ""
        if not address:
            raise RuntimeError(process.communicate()[1])
        yield address, process
    finally:
        process.kill()
        process.communicate()


def plain_answer(message: dict[str, Any]) -> dict[str, Any]:
    """What openpi's server would say."""
    return {"actions": np.zeros((4, 1), np.float32), "server_timing": {"infer_ms": 1.0}}


@contextlib.contextmanager
def lying(
    answer: Callable[[dict[str, Any]], bytes | str | dict[str, Any]],
    metadata: bytes | None = None,
) -> Iterator[str]:
    """A server in a thread that answers whatever a test wants; gives its address."""
    from websockets.sync.server import ServerConnection, serve

    def handle(connection: ServerConnection) -> None:
        connection.send(pack(metadata_of(CARD)) if metadata is None else metadata)
        for frame in connection:
            said = answer(unpack(frame))  # type: ignore[arg-type]
            connection.send(pack(said) if isinstance(said, dict) else said)

    with serve(handle, "127.0.0.1", 0, compression=None, max_size=None) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"ws://127.0.0.1:{server.socket.getsockname()[1]}"
        server.shutdown()
