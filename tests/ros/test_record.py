"""`leanvla record` beside running nodes: what it writes is what a replay reads."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from policy.replay.open import Options, open_episode
from tests.ros.robot import ROOT, wait_for


def recorder(robot, out, *options) -> subprocess.Popen:
    command = [sys.executable, "-m", "leanvla", "record", str(robot.contract_path), "--out"]
    return subprocess.Popen(
        [*command, str(out), *options],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_running_robot_is_recorded_until_ctrl_c(robot, tmp_path):
    robot.chain()
    running = recorder(robot, tmp_path / "bags")

    def files() -> list[Path]:
        return list((tmp_path / "bags").rglob("*.mcap"))

    wait_for(lambda: files() and files()[0].stat().st_size > 2_000_000, 40.0, "two megabytes")
    running.send_signal(signal.SIGINT)
    stdout, stderr = running.communicate(timeout=30)
    assert running.returncode == 0, stderr
    done = json.loads(stdout)
    assert done["state"] == "closed"
    contract, heard = robot.contract, done["messages"]
    for topic in (
        *(camera.topic for camera in contract.cameras),
        *(source.topic for source in contract.state),
        *(contract.command.topic, contract.command.guarded_topic, contract.gripper.topic),
        *("/policy_node/status", "/policy_node/instruction"),
    ):
        assert heard[topic] > 0, topic
    episode = open_episode(Path(done["bag"]), 0, Options())
    steps = list(episode.steps())
    assert len(steps) > 5
    assert {step.instruction for step in steps} == {"pick up the red cube"}
    look = steps[0].look()
    assert [image.shape for image in look.images] == [(96, 96, 3)] * 2
    rows = [row for step in steps for row in step.rows]
    assert max(row[0] for row in rows) > 0.09


def test_a_recorder_is_no_guard(robot, tmp_path):
    """It listens where the guard does; a policy must not take it for one."""
    robot.sense()
    running = recorder(robot, tmp_path / "bags", "--seconds", "60")
    wait_for(lambda: list(tmp_path.rglob("*.mcap")), 40.0, "the recorder")
    node = robot.start("policy_node", policy="tests.ros.policies:Steady", guard_timeout_s=1.0)
    node.says("cannot activate: no guard listens on /leanvla/command")
    running.send_signal(signal.SIGTERM)
    running.communicate(timeout=30)


def test_a_robot_that_says_nothing_is_a_failed_recording(robot, tmp_path):
    running = recorder(robot, tmp_path / "bags", "--seconds", "0.5")
    stdout, stderr = running.communicate(timeout=60)
    assert running.returncode == 1
    assert not any(json.loads(stdout)["messages"].values())
    assert "nothing was heard on" in stderr
