"""A robot to drive in tests: publishes what its contract says, writes down what it is told."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import rclpy
import yaml
from geometry_msgs.msg import PoseStamped, TwistStamped
from leanvla_ros.convert import to_image, to_joint_state, to_pose
from leanvla_ros.inputs import message_type
from leanvla_ros.qos import LATCHED
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.srv import SetParametersAtomically
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import String
from std_srvs.srv import SetBool, Trigger

from policy.contract_file import read_contract
from tests.policy.robot.fakes import CONFIG

ROOT = Path(__file__).resolve().parents[2]
POLICIES = "tests.ros.policies"
_LIBC = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1  # Linux, as the wheels of ROS are


def wait_for(condition, seconds: float = 15.0, what: str = "") -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what or condition}")
        time.sleep(0.01)


def asked(message) -> float:
    """How far from rest a command is: a speed, or a joint away from where it is measured, zero."""
    if isinstance(message, TwistStamped):
        return message.twist.linear.x
    return message.points[0].positions[0] if message.points else 0.0


class Process:
    """One node in a process of its own; its log is kept for the failure report."""

    def __init__(
        self, name: str, log: Path, *more: str, package: str = "leanvla_ros", **parameters
    ) -> None:
        args = [f"-p{key}:={_text(value)}" for key, value in parameters.items()]
        args = [part for arg in args for part in (arg[:2], arg[2:])]
        self.log = log
        command = [sys.executable, "-m", f"{package}.{name}", "--ros-args", *args, *more]
        self._file = log.open("wb")
        self.popen = subprocess.Popen(
            command,
            stdout=self._file,
            stderr=subprocess.STDOUT,
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            preexec_fn=_end_with_the_tests,
        )

    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def says(self, words: str, seconds: float = 20.0) -> None:
        wait_for(lambda: words in self.text() or not self.alive, seconds, f"{words!r}")
        assert words in self.text(), self.text()

    @property
    def alive(self) -> bool:
        return self.popen.poll() is None

    def signal(self, number: int) -> None:
        self.popen.send_signal(number)

    def end(self, seconds: float = 10.0) -> int:
        return self.popen.wait(seconds)

    def cpu_s(self) -> float:
        """Processor time so far, of all threads."""
        fields = Path(f"/proc/{self.popen.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def close(self) -> None:
        if self.alive:
            self.signal(signal.SIGKILL)
        self.popen.wait(10)
        self._file.close()


def _end_with_the_tests() -> None:
    """A test that ran out of time ends without a farewell: its nodes must not stay."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _text(value) -> str:
    return (
        str(value).lower()
        if isinstance(value, bool)
        else yaml.safe_dump(value, default_flow_style=True).split("\n")[0]
    )


class Robot:
    """Sensors at a rate, on a thread of its own; nodes started by `start` end with it."""

    def __init__(self, folder: Path, rate_hz: float = 30.0) -> None:
        self.folder, self.rate_hz = folder, rate_hz
        self.use("tabletop")
        self.commands: list[tuple[float, object]] = []
        self.heard: dict[str, list] = {}
        self.mute: set[str] = set()
        self.frames = 0
        self.sent_s: dict[int, float] = {}
        self.processes: list[Process] = []
        self._leaving = threading.Event()

    def use(self, name: str) -> None:
        """Be another robot."""
        self.contract_path = CONFIG / f"{name}.yaml"
        self.contract = read_contract(self.contract_path)

    def edit(self, **edits) -> None:
        """Change the contract (`a__b=value`) before anything starts."""
        data = yaml.safe_load(self.contract_path.read_text())
        for path, value in edits.items():
            *way, last = path.split("__")
            place = data
            for key in way:
                place = place[int(key) if isinstance(place, list) else key]
            place[last] = value
        self.contract_path = self.folder / "contract.yaml"
        self.contract_path.write_text(yaml.safe_dump(data))
        self.contract = read_contract(self.contract_path)

    def __enter__(self) -> Robot:
        self.node = rclpy.create_node("robot_under_test")
        self.executor = SingleThreadedExecutor()
        self.executor.add_node(self.node)
        self._spinner = threading.Thread(target=self._spin, daemon=True)
        self._spinner.start()
        return self

    def __exit__(self, *_) -> None:
        self._leaving.set()
        for process in self.processes:
            process.close()
            sys.stdout.write(f"--- {process.log.name}\n{process.text()[-3000:]}\n")
        self._spinner.join(30)
        if not self._spinner.is_alive():  # what a thread still spins must not be destroyed
            self.executor.shutdown()
            self.node.destroy_node()

    def _spin(self) -> None:
        while not self._leaving.is_set():
            self.executor.spin_once(timeout_sec=0.05)

    def sense(self) -> None:
        """Start the sensors, and listen where the robot does."""
        make = self.node.create_publisher
        self._images = [(camera, make(Image, camera.topic, 2)) for camera in self.contract.cameras]
        if self.contract.feedback.pose:
            self._pose = make(PoseStamped, self.contract.feedback.pose, 2)
        else:
            self.mute.add("pose")
        self._joints = make(JointState, self.contract.feedback.joint_states, 2)
        self._words = make(String, "/policy_node/instruction", LATCHED)
        topic = self.contract.command.guarded_topic
        kind = message_type(self.contract.command.kind)
        self.node.create_subscription(kind, topic, self._on_command, 50)
        self._pixels = [
            np.random.default_rng(i).integers(0, 256, (c.height, c.width, 3), np.uint8)
            for i, c in enumerate(self.contract.cameras)
        ]
        self.node.create_timer(1.0 / self.rate_hz, self._publish)

    def _on_command(self, message) -> None:
        self.commands.append((time.monotonic(), message))

    def _publish(self) -> None:
        now = self.node.get_clock().now()
        stamp = now.to_msg()
        frame = self.contract.command.frame_id
        if "pose" not in self.mute:
            self._pose.publish(to_pose([0.0, 0.0, 1.0], [1.0, 0.0, 0.0, 0.0], stamp, frame))
        others = {"finger_joint2": -0.04, "finger_joint1": 0.04, "gripper": 0.0}
        measured = dict.fromkeys(self.contract.command.joints, 0.0)
        self._joints.publish(to_joint_state(others | measured, stamp))
        for (camera, publisher), pixels in zip(self._images, self._pixels, strict=True):
            if camera.view in self.mute:
                continue
            pixels[0, 0] = self.frames % 256
            publisher.publish(to_image(pixels, stamp, camera.frame_id))
            self.frames += 1
        self.sent_s[now.nanoseconds] = time.monotonic()

    def say(self, text: str) -> None:
        self._words.publish(String(data=text))

    def start(self, name: str, **parameters) -> Process:
        number = len(self.processes)
        parameters.setdefault("contract", str(self.contract_path))
        process = Process(name, self.folder / f"{number}-{name}.log", **parameters)
        self.processes.append(process)
        return process

    def chain(self, policy: str = "Steady", **parameters) -> tuple[Process, Process]:
        """Sensors, guard and policy, up to the first motion."""
        self.sense()
        guard = self.start("guard_node")
        node = self.start("policy_node", policy=f"{POLICIES}:{policy}", **parameters)
        node.says("is warm")
        self.say("pick up the red cube")
        wait_for(lambda: self.moving(), 20.0, "motion")
        return guard, node

    def lately(self, seconds: float = 0.3) -> list[float]:
        since = time.monotonic() - seconds
        return [asked(message) for at, message in self.commands if at > since]

    def moving(self) -> bool:
        """Told to move within the last periods; between two chunks there may be a rest."""
        return any(self.lately())

    def still(self) -> bool:
        """Told not to move for several periods, and still being told."""
        said = self.lately(0.4)
        return len(said) > 3 and not any(said)

    def stays_still(self, seconds: float = 0.7) -> None:
        """No motion from here on, and the robot is still being told so."""
        wait_for(self.still, 10.0, "stop")
        time.sleep(seconds)
        assert self.still(), self.lately(1.0)

    def listen(self, kind, topic, qos=10) -> list:
        found: list = []
        self.node.create_subscription(kind, topic, found.append, qos)
        return found

    def call(self, kind, service: str, request, seconds: float = 20.0):
        client = self.node.create_client(kind, service)
        assert client.wait_for_service(seconds), service
        future = client.call_async(request)
        wait_for(future.done, seconds, service)
        return future.result()

    def press(self, service: str) -> bool:
        return self.call(Trigger, service, Trigger.Request()).success

    def pause(self, on: bool) -> None:
        self.call(SetBool, "/policy_node/pause", SetBool.Request(data=on))

    def transition(self, number: int) -> bool:
        request = ChangeState.Request()
        request.transition.id = number
        return self.call(ChangeState, "/policy_node/change_state", request).success

    def state(self) -> str:
        """The node's state; asked again while nobody answers, for one that ended may be listed."""
        client = self.node.create_client(GetState, "/policy_node/get_state")
        for _ in range(15):
            future = client.call_async(GetState.Request())
            with contextlib.suppress(AssertionError):
                wait_for(future.done, 2.0)
                return future.result().current_state.label
        raise AssertionError("no policy_node answers")

    def set(self, **values):
        request = SetParametersAtomically.Request()
        request.parameters = [
            Parameter(name, value=value).to_parameter_msg() for name, value in values.items()
        ]
        service = "/policy_node/set_parameters_atomically"
        return self.call(SetParametersAtomically, service, request).result
