"""The whole chain closed over DDS: simulator -> policy -> guard -> simulator."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import pytest

from tests.ros.robot import ROOT, Process, wait_for

EPISODES = 10


@pytest.mark.slow
@pytest.mark.gl
@pytest.mark.timeout(600)
def test_mini_solves_tabletop_over_dds(tmp_path):
    """A loose floor, far below the measured rate: it catches a broken chain, not a worse policy.

    Simulated time waits for every answer, so that neither the wall clock nor the load decides.
    """
    out = tmp_path / "episodes.json"
    start = {"use_sim_time": True, "clock_timeout_s": 60.0}
    robot = {"seed": 50_000, "episodes": EPISODES, "speed": 20.0, "out": str(out)}
    nodes = [
        Process("guard_node", tmp_path / "guard.log", **start),
        Process("policy_node", tmp_path / "policy.log", policy="mini", **start),
        Process("sim_node", tmp_path / "sim.log", **robot),
    ]
    guard, policy, sim = nodes
    try:
        wait_for(lambda: not sim.alive, 500.0, "all episodes")
        assert sim.end() == 0
        episodes = json.loads(out.read_text())["episodes"]
        print([(e["seed"], e["outcome"], e["steps"], e["rests"]) for e in episodes])
        assert [e["seed"] for e in episodes] == list(range(50_000, 50_000 + EPISODES))
        assert sum(e["outcome"] == "success" for e in episodes) >= 8
        for node in (guard, policy):
            node.signal(signal.SIGTERM)
            assert node.end() == 0
        assert "latched" not in guard.text()
    finally:
        for node in nodes:
            node.close()
            print(f"--- {node.log.name}\n{node.text()[-2000:]}")


@pytest.mark.gl
def test_the_demo_ends_by_name_when_a_node_does():
    command = [sys.executable, "-m", "leanvla_ros.demo", "--policy", "nosuch"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=90)
    assert done.returncode == 3
    assert "policy_node ended with exit code 3" in done.stderr
    assert "0 of 0 episodes solved" in done.stdout
