"""Killed in the middle of writing results: the old file or the new one, never half of one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from sim.rollout.store import EpisodeStore

ROOT = Path(__file__).resolve().parents[2]
METRICS = """
import sys
from pathlib import Path
from leanvla.run_folder import write_json
for n in range(10**9):
    write_json(Path(sys.argv[1]), {"n": n, "rows": [n] * 5000})
    print(n, flush=True)
"""
EPISODES = """
import sys
from pathlib import Path
from sim.rollout.store import EpisodeStore
from sim.rollout.types import EpisodeRecord
with EpisodeStore(Path(sys.argv[1])) as store:
    for n in range(10**9):
        store.append(EpisodeRecord(seed=n, method="dense", keep=1.0, outcome="success"))
        print(n, flush=True)
"""


def killed(code: str, path: Path, after: int, wait_s: float) -> int:
    """Runs `code` until it has told of `after` writes, kills it, and gives the last it told of."""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=env, text=True) as child:
        for line in child.stdout:
            if int(line) >= after:
                break
        time.sleep(wait_s)
        child.send_signal(signal.SIGKILL)
        told = child.stdout.read().split()
    return int(told[-1]) if told else after


def test_metrics_are_the_old_or_the_new_ones(tmp_path):
    path = tmp_path / "metrics.json"
    for attempt in range(3):
        told = killed(METRICS, path, 3, 0.013 * attempt)
        seen = json.loads(path.read_text())
        assert seen["n"] in (told, told + 1)
        assert seen["rows"] == [seen["n"]] * 5000


def test_no_episode_that_was_told_is_lost_and_the_rest_goes_on(tmp_path):
    path = tmp_path / "episodes.jsonl"
    told = killed(EPISODES, path, 20, 0.02)
    with EpisodeStore(path) as store:
        assert len(store) in (told + 1, told + 2)
