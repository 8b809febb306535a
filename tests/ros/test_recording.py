"""What the node records beside control, and what a replay makes of it."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time

import pytest
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import Transition
from rosbags.highlevel import AnyReader

from policy.replay.open import Options, open_episode
from tests.ros.robot import POLICIES, ROOT, Process, wait_for


def replayed(bag, out, *options) -> dict:
    """`leanvla replay`, in a process of its own."""
    command = [sys.executable, "-m", "leanvla", "replay", str(bag), "--out", str(out), *options]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr
    (run,) = (
        run
        for run in json.loads((out / "metrics.json").read_text())["runs"]
        if run["method"] == "vla_pruner"
    )
    assert run["recorded_decisions"]["same_cell"]
    return run["recorded_decisions"]


def only_bag(folder):
    (bag,) = folder.iterdir()
    return bag


def counts(bag) -> dict[str, int]:
    with AnyReader([bag]) as reader:
        return {c.topic: c.msgcount for c in reader.connections}


def test_a_recorded_run_replays_to_the_same_decisions(robot, tmp_path):
    root = tmp_path / "bags"
    _, node = robot.chain(method="vla_pruner", keep=0.25, record=str(root))
    refused = robot.set(record="elsewhere")
    assert not refused.successful
    assert "read-only while the node is active" in refused.reason
    time.sleep(1.5)
    robot.say("now the blue one")
    time.sleep(1.0)
    node.signal(signal.SIGTERM)
    assert node.end() == 0
    bag = only_bag(root)
    found = counts(bag)
    contract = robot.contract
    topics = {camera.topic for camera in contract.cameras} | {s.topic for s in contract.state}
    topics |= {contract.command.topic, contract.gripper.topic, "/policy_node/status"}
    assert topics <= set(found)
    assert found["/leanvla/instruction"] == 2
    options = ("--policy", f"{POLICIES}:Steady", "--method", "vla_pruner", "--keep", "0.25")
    again = replayed(bag, tmp_path / "replay", *options)
    assert again["compared"] == again["identical"] == found["/leanvla/decision"] > 5


def test_each_activation_is_a_bag_that_begins_whole(robot, tmp_path):
    """The first decision is made from pictures that came before the gate opened."""
    root = tmp_path / "bags"
    robot.chain(record=str(root), method="vla_pruner", keep=0.5)
    assert robot.transition(Transition.TRANSITION_DEACTIVATE)
    first = only_bag(root)
    assert robot.set(record=str(tmp_path / "more")).successful
    robot.stays_still(0.2)
    assert robot.transition(Transition.TRANSITION_ACTIVATE)
    wait_for(robot.moving, what="motion again")
    assert robot.transition(Transition.TRANSITION_DEACTIVATE)
    assert only_bag(root) == first
    bag = only_bag(tmp_path / "more")
    options = ("--policy", f"{POLICIES}:Steady", "--method", "vla_pruner", "--keep", "0.5")
    again = replayed(bag, tmp_path / "replay", *options)
    assert again["compared"] == again["identical"] == counts(bag)["/leanvla/decision"] > 0


def test_a_full_disk_degrades_the_recording_and_control_goes_on(robot, tmp_path):
    root = tmp_path / "bags"
    diagnostics = robot.listen(DiagnosticArray, "/diagnostics")
    _, node = robot.chain(record=str(root))
    bag = only_bag(root)

    def size() -> int:
        return sum(path.stat().st_size for path in bag.iterdir())

    wait_for(lambda: size() > 200_000, what="a chunk on the disk")
    # As a full disk: every write beyond this size fails in this process.
    most = size() + (1 << 20)
    resource.prlimit(node.popen.pid, resource.RLIMIT_FSIZE, (most, most))
    wait_for(lambda: "degraded: recording stopped" in str(diagnostics[-2:]), 30.0, "degraded")
    assert str(diagnostics[-2:]).count("control goes on") >= 1
    robot.commands.clear()
    wait_for(robot.moving, what="motion beside a full disk")
    node.signal(signal.SIGTERM)
    assert node.end() == 0
    assert node.text().count("recording stopped") == 2  # once when it happens, once at the end
    cut = open_episode(bag, 0, Options(recover=True))
    assert [step.look() for step in cut.steps()]  # what was written stays readable


def test_pictures_can_be_left_out(robot, tmp_path):
    root = tmp_path / "bags"
    _, node = robot.chain(record=str(root), redact="drop")
    time.sleep(0.5)
    node.signal(signal.SIGTERM)
    assert node.end() == 0
    found = counts(only_bag(root))
    assert found["/leanvla/decision"] > 0
    assert not any(found.get(camera.topic) for camera in robot.contract.cameras)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"record": "blocked/bags"}, "cannot activate: record: "),
        ({"record": "bags", "redact": "blur"}, "redact is 'blur': choose none, mosaic, drop"),
    ],
)
def test_what_cannot_be_recorded_refuses_to_activate(robot, tmp_path, options, says):
    (tmp_path / "blocked").write_text("a file, where a folder is wanted")
    robot.sense()
    robot.start("guard_node")
    options = options | {"record": str(tmp_path / options["record"])}
    node = robot.start("policy_node", policy=f"{POLICIES}:Steady", **options)
    node.says(says)
    assert node.end() == 3


@pytest.mark.slow
@pytest.mark.gl
@pytest.mark.timeout(300)
def test_the_recorded_chain_of_simulator_policy_and_guard_replays_bit_for_bit(tmp_path):
    root, out = tmp_path / "bags", tmp_path / "episodes.json"
    start = {"use_sim_time": True, "clock_timeout_s": 60.0}
    mini = {"policy": "mini", "method": "vla_pruner", "keep": 0.25, "record": str(root)}
    nodes = [
        Process("guard_node", tmp_path / "guard.log", **start),
        Process("policy_node", tmp_path / "policy.log", **mini, **start),
        Process("sim_node", tmp_path / "sim.log", episodes=2, max_steps=60, out=str(out)),
    ]
    try:
        wait_for(lambda: not nodes[2].alive, 150.0, "two episodes")
        nodes[1].signal(signal.SIGTERM)
        assert nodes[1].end() == 0
    finally:
        for node in nodes:
            node.close()
            print(f"--- {node.log.name}\n{node.text()[-2000:]}")
    bag = only_bag(root)
    options = ("--policy", "mini", "--method", "vla_pruner", "--keep", "0.25")
    again = replayed(bag, tmp_path / "replay", *options)
    assert again["compared"] == again["identical"] == counts(bag)["/leanvla/decision"] >= 10
