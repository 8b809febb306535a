"""Messages that look like ROS messages, a policy that is told what to say, and a robot to move."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import msgspec
import numpy as np

from policy.contract import Box, Contract
from policy.contract_file import read_contract
from policy.robot.session import Now, Session
from policy.types import ActionChunk, ActionSpec, Inference, ObservationSpec, Timing

CONFIG = Path(__file__).resolve().parents[3] / "ros2_ws/src/leanvla_ros/config"
CONTRACTS = sorted(path.stem for path in CONFIG.glob("*.yaml"))


def contract(name: str = "tabletop") -> Contract:
    return read_contract(CONFIG / f"{name}.yaml")


def changed(value, path: str, new):
    """A copy of nested structs with the value at `a.b.0.c` replaced."""
    head, _, rest = path.partition(".")
    if isinstance(value, msgspec.Struct):
        inner = changed(getattr(value, head), rest, new) if rest else new
        return msgspec.structs.replace(value, **{head: inner})
    if isinstance(value, dict):
        return {**value, head: changed(value[head], rest, new) if rest else new}
    items = list(value)
    items[int(head)] = changed(items[int(head)], rest, new) if rest else new
    return tuple(items)


def header(stamp_s: float, frame_id: str = ""):
    nanoseconds = round(stamp_s * 1e9)
    stamp = SimpleNamespace(sec=nanoseconds // 10**9, nanosec=nanoseconds % 10**9)
    return SimpleNamespace(stamp=stamp, frame_id=frame_id)


def image(camera, stamp_s: float, pixels=None, encoding: str | None = None, pad: int = 0):
    """A raw image message; `pixels` are as the encoding wants them."""
    encoding = encoding or camera.encodings[0]
    if pixels is None:
        pixels = noise(camera, round(stamp_s * 1e3))
    height, width = pixels.shape[:2]
    rows = np.zeros((height, pixels[0].size + pad), np.uint8)
    rows[:, : pixels[0].size] = pixels.reshape(height, -1)
    return SimpleNamespace(
        header=header(stamp_s, camera.frame_id),
        height=height,
        width=width,
        encoding=encoding,
        is_bigendian=0,
        step=rows.shape[1],
        data=rows.tobytes(),
    )


def noise(camera, seed: int):
    return np.random.default_rng(seed).integers(0, 256, (camera.height, camera.width, 3), np.uint8)


def joints(stamp_s: float, positions: dict[str, float]):
    return SimpleNamespace(
        header=header(stamp_s),
        name=list(positions),
        position=list(positions.values()),
        velocity=[0.0] * len(positions),
        effort=[],
    )


def pose(stamp_s: float, position, quat=(1.0, 0.0, 0.0, 0.0), frame_id: str = "world"):
    x, y, z, w = quat
    return SimpleNamespace(
        header=header(stamp_s, frame_id),
        pose=SimpleNamespace(
            position=SimpleNamespace(x=position[0], y=position[1], z=position[2]),
            orientation=SimpleNamespace(x=x, y=y, z=z, w=w),
        ),
    )


def small_pictures(name: str) -> dict:
    """Edits of a `Rig` that make its pictures small, where what they show does not matter."""
    cameras = range(len(contract(name).cameras))
    sizes = {f"cameras__{i}__{side}": 16 for i in cameras for side in ("width", "height")}
    return sizes | {f"cameras__{i}__crop": None for i in cameras}


def specs(contract: Contract, horizon: int = 8):
    """The specs of a policy that fits a contract."""
    observation = ObservationSpec(
        tuple(camera.view for camera in contract.cameras),
        tuple(name for source in contract.state for name in source.values),
    )
    a = contract.action
    return observation, ActionSpec(a.names, horizon, a.rate_hz, a.rotation, a.gripper)


def inference(actions, memory="remembered") -> Inference:
    actions = np.asarray(actions, np.float32)
    return Inference(ActionChunk(actions, actions, None, ()), memory, Timing(1.0))


class Rig:
    """A session, its clock, and a robot of which every sensor works until a test breaks one."""

    def __init__(self, robot: str = "tabletop", horizon: int = 8, start_s: float = 100.0, **edits):
        chosen = contract(robot)
        for path, new in edits.items():
            chosen = changed(chosen, path.replace("__", "."), new)
        self.contract, self.now_s = chosen, start_s
        self.session = Session(chosen, *specs(chosen, horizon))
        self.mute: set[str] = set()
        box = chosen.limits.workspace
        self.hand = [0.0, 0.0, 1.0]
        if isinstance(box, Box):
            self.hand = [(a + b) / 2 for a, b in zip(box.lower, box.upper, strict=True)]
        lows = {n: (j.lower + j.upper) / 2 for n, j in chosen.limits.joints.items()}
        self.positions = lows
        self.dof = len(chosen.action.names)

    @property
    def now(self) -> Now:
        return Now(self.now_s, self.now_s + 1000.0)

    def wait(self, seconds: float) -> None:
        self.now_s += seconds

    def sense(self, stamp_s: float | None = None) -> None:
        """Every sensor that is not muted speaks once."""
        stamp_s = self.now_s if stamp_s is None else stamp_s
        for camera in self.contract.cameras:
            if camera.view not in self.mute:
                self.session.image(camera.view, self.picture(camera, stamp_s), self.now)
        for source in self.contract.state:
            if source.topic not in self.mute:
                self.session.state(source.topic, self.measure(source, stamp_s), self.now)
        senses = self.session.senses
        if "joints" not in self.mute:
            senses.joint_feedback(joints(stamp_s, self.positions))
        if "pose" not in self.mute:
            senses.pose_feedback(pose(stamp_s, self.hand))

    def picture(self, camera, stamp_s):
        message = image(camera, stamp_s)
        if camera.type.endswith("CompressedImage"):
            return jpeg(camera, stamp_s)
        return message

    def measure(self, source, stamp_s):
        if source.type.endswith("PoseStamped"):
            return pose(stamp_s, self.hand, frame_id=source.frame_id)
        names = {field.rpartition(".")[0] for field in source.values.values()}
        return joints(stamp_s, {n: self.positions.get(n, 0.01) for n in names})

    def chunk(self, value: float = 0.2, rows: int | None = None):
        """Rows that ask for little: `value` on the first axis, or where the joints are."""
        k = rows or self.session.broker.horizon
        out = np.zeros((k, self.dof), np.float32)
        if self.contract.command.kind == "trajectory":
            start = [self.positions[n] for n in self.contract.command.joints]
            out[:, list(self.contract.action.columns)] = start
        out[:, 0] += value
        return out

    def query(self, actions=None) -> bool:
        """Ask, look and answer at once; whether there was a question."""
        question = self.session.ask(self.now)
        if question is None:
            return False
        self.session.look(question)
        self.query_answer(question, actions)
        return True

    def query_answer(self, question, actions=None) -> None:
        said = self.chunk() if actions is None else actions
        self.session.answer(question, inference(said), self.now)

    def step(self, actions=None):
        """One period: sensors, a query where one is wanted, a command."""
        self.wait(self.contract.period_s)
        self.sense()
        self.query(actions)
        return self.session.tick(self.now)

    def start(self, text: str = "pick up the red cube") -> None:
        self.session.instruct(text, self.now)


def jpeg(camera, stamp_s):
    import io

    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(noise(camera, round(stamp_s * 1e3))).save(buffer, "JPEG")
    return SimpleNamespace(
        header=header(stamp_s, camera.frame_id), format="jpeg", data=buffer.getvalue()
    )
