"""Small recordings, written by the libraries that everybody writes them with, and a policy.

The policy is a few lines of numpy whose answer depends on what it saw before, so that a replay that
loses or mixes up memory cannot pass.
"""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import numpy as np

from policy.contract import Image, JointState
from policy.replay.messages import image_message, state_message, text_message
from policy.replay.types import ArrayEpisode, EpisodeInfo, Look
from policy.types import ActionChunk, ActionSpec, Inference, Observation, ObservationSpec, Timing

VIEWS = ("front", "wrist")
STATE = ("x [m]", "y [m]", "grip [m]")
ACTION = ("dx [m]", "dy [m]", "grip [1]")
OBSERVATION = ObservationSpec(VIEWS, STATE)
RATE_HZ = 20.0
SPEC = ActionSpec(ACTION, 4, RATE_HZ, "none", "0 closed, 1 open")
WORDS = "push the block to the left"
TOKENS = 16


def frame(seed: int, size: int = 32) -> np.ndarray:
    """A smooth picture that is like no other, so that lossy video still tells frames apart."""
    rng = np.random.default_rng(seed)
    small = rng.integers(20, 236, (4, 4, 3)).astype(np.uint8)
    return small.repeat(size // 4, 0).repeat(size // 4, 1)


def states(steps: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, 1]).normal(size=(steps, len(STATE))).astype(np.float32)


def actions(steps: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, 2]).normal(size=(steps, len(ACTION))).astype(np.float32)


def looks(steps: int, seed: int = 0) -> list[Look]:
    values = states(steps, seed)
    return [
        Look(tuple(frame(seed * 10_000 + i * 10 + v) for v in range(len(VIEWS))), values[i])
        for i in range(steps)
    ]


def episode(steps: int = 12, seed: int = 0) -> ArrayEpisode:
    spec = ActionSpec(ACTION, 1, RATE_HZ, SPEC.rotation, SPEC.gripper)
    info = EpisodeInfo("made", "memory", OBSERVATION, spec, RATE_HZ, WORDS, steps)
    return ArrayEpisode(info, actions(steps, seed), looks(steps, seed).__getitem__)


class MemoryPolicy:
    """Says the mean of all it saw since it forgot, and keeps the tokens of the brightest patches.

    Args:
        keep: tokens kept per view; all where the method is dense.
    """

    observation_spec = OBSERVATION
    action_spec = SPEC
    execute = 2

    def __init__(self, keep: int = TOKENS, slow_ms: float = 1.0) -> None:
        self.keep, self.slow_ms = keep, slow_ms
        self.asked: list[Observation] = []

    def initial_state(self):
        return ()

    def infer(self, observation: Observation, state) -> Inference:
        self.asked.append(observation)
        seen = (*state, sum(float(image.mean()) for image in observation.images))
        rows = np.outer(np.arange(1, 5), observation.state).astype(np.float32)
        said = (rows + np.float32(np.mean(seen)) + observation.episode).astype(np.float32)
        kept = tuple(self._kept(image, len(seen)) for image in observation.images)
        timing = Timing(self.slow_ms, {"vision": 0.5}, 2 * TOKENS, 2 * self.keep, False, 50, 40)
        return Inference(ActionChunk(said, said, None, kept), seen, timing)

    def _kept(self, image, turn):
        light = image.reshape(4, 8, 4, 8, 3).mean((1, 3, 4)).reshape(-1) + turn * np.arange(TOKENS)
        return np.sort(np.argsort(-light, kind="stable")[: self.keep])


def write_hdf5(path: Path, steps: int = 6, demos: int = 2, words: str | None = WORDS) -> Path:
    import h5py

    env = {"env_name": "Lift", "env_kwargs": {"control_freq": 20}}
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs["env_args"] = json.dumps(env)
        if words:
            data.attrs["problem_info"] = json.dumps({"language_instruction": f'"{words}"'})
        for number in range(demos):
            demo = data.create_group(f"demo_{number}")
            rng = np.random.default_rng(number)
            demo["actions"] = rng.normal(size=(steps, 7))
            demo["obs/agentview_rgb"] = np.stack([frame(number * 100 + i) for i in range(steps)])
            demo["obs/eye_in_hand_rgb"] = np.stack([frame(900 + i) for i in range(steps)])
            for name, width in (("ee_pos", 3), ("ee_ori", 3), ("gripper_states", 2)):
                demo[f"obs/{name}"] = rng.normal(size=(steps, width))
    return path


def write_lerobot21(root: Path, lengths: tuple[int, ...] = (6, 5), fps: int = 20) -> Path:
    """A LeRobotDataset v2.1, as its published layout describes it."""
    import pyarrow as pa
    import pyarrow.parquet as parquet

    key = "observation.images.front"
    features = {
        key: {"dtype": "video", "shape": [32, 32, 3], "names": ["height", "width", "channel"]},
        "observation.state": {"dtype": "float32", "shape": [3], "names": {"axes": list(STATE)}},
        "action": {"dtype": "float32", "shape": [3], "names": list(ACTION)},
    }
    info = {
        "codebase_version": "v2.1",
        "fps": fps,
        "total_episodes": len(lengths),
        "chunks_size": 1000,
        "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "video_path": "videos/chunk-{episode_chunk:03d}/{video_key}/"
        "episode_{episode_index:06d}.mp4",
        "features": features,
    }
    meta, data = root / "meta", root / "data/chunk-000"
    videos = root / f"videos/chunk-000/{key}"
    for folder in (meta, data, videos):
        folder.mkdir(parents=True)
    (meta / "info.json").write_text(json.dumps(info))
    lines = []
    for number, steps in enumerate(lengths):
        table = {
            "observation.state": states(steps, number).tolist(),
            "action": actions(steps, number).tolist(),
            "timestamp": [i / fps for i in range(steps)],
            "episode_index": [number] * steps,
        }
        parquet.write_table(pa.table(table), data / f"episode_{number:06d}.parquet")
        write_video(videos / f"episode_{number:06d}.mp4", steps, fps, number)
        lines.append(json.dumps({"episode_index": number, "tasks": [WORDS], "length": steps}))
    (meta / "episodes.jsonl").write_text("\n".join(lines))
    return root


def write_video(path: Path, steps: int, fps: int, seed: int) -> None:
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(fps), options={"crf": "10"})
        stream.width = stream.height = 32
        stream.pix_fmt, stream.thread_count = "yuv420p", 1
        for i in range(steps):
            picture = frame(seed * 10_000 + i * 10)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


CONTRACT = f"""
schema: 1
robot: made
rate_hz: {RATE_HZ}
skew_ms: 10.0
cameras:
  - {{view: front, topic: /front, frame_id: "", width: 32, height: 32, rate_hz: 20.0,
     encodings: [rgb8], age: {{max_ms: 500.0, ahead_ms: 60.0}}, frozen_s: null}}
  - {{view: wrist, topic: /wrist, frame_id: "", width: 32, height: 32, rate_hz: 20.0,
     encodings: [rgb8], age: {{max_ms: 500.0, ahead_ms: 60.0}}, frozen_s: null}}
state:
  - topic: /joint_states
    type: sensor_msgs/msg/JointState
    values: {{"x [m]": jx.position, "y [m]": jy.position, "grip [m]": jg.position}}
    age: {{max_ms: 500.0, ahead_ms: 60.0}}
feedback: {{joint_states: /joint_states, age: {{max_ms: 500.0, ahead_ms: 60.0}}}}
action:
  names: ["dx [m]", "dy [m]", "grip [1]"]
  rotation: none
  gripper: "0 closed, 1 open"
  rate_hz: {RATE_HZ}
  kind: joint_position
  scale: [1.0, 2.0]
  columns: [0, 1]
  gripper_column: 2
gripper: {{joint: jg, topic: /hand, guarded_topic: /hand_safe, open_at: 1.0, closed_at: 0.0,
  open_position: 0.04, closed_position: 0.0, binary: false, move_s: 0.4}}
command: {{kind: trajectory, topic: /command, guarded_topic: /safe, frame_id: world,
  age: {{max_ms: 250.0, ahead_ms: 60.0}}, safe_action: hold_measured, latch_after: 10,
  joints: [jx, jy]}}
limits:
  margin: 0.1
  workspace: joint limits only
  joints:
    jx: {{lower: -9.0, upper: 9.0, velocity: 100.0, acceleration: 10000.0, jerk: 1000000.0}}
    jy: {{lower: -9.0, upper: 9.0, velocity: 100.0, acceleration: 10000.0, jerk: 1000000.0}}
execution: {{mode: sequential, deadline_ms: 500.0, hang_s: 20.0}}
"""
JOINTS = ("jx", "jy", "jg")


def contract():
    from policy.contract_file import parse_contract

    return parse_contract(CONTRACT)


def sent(i: int) -> tuple[int, list[tuple[str, str, bytes, int]]]:
    """The messages of one moment as (topic, type, bytes, written): pictures, state, a command."""
    from policy.replay.messages import rows_message

    stamp = 1_000_000_000 + i * 50_000_000
    look, row = looks(i + 1)[i], actions(i + 1)[i]
    command = rows_message(("jx", "jy"), np.array([[row[0], row[1] * 2.0]]), stamp, RATE_HZ)
    hand = rows_message(("jg",), np.array([[row[2] * 0.04]]), stamp, RATE_HZ)
    trajectory = "trajectory_msgs/msg/JointTrajectory"
    later = stamp + 2_000_000
    return stamp, [
        ("/joint_states", JointState, state_message(JOINTS, look.state, stamp), later),
        ("/front", Image, bytes(image_message(look.images[0], stamp)), later + 1),
        ("/wrist", Image, bytes(image_message(look.images[1], stamp)), later + 2),
        ("/hand", trajectory, hand, later + 3),
        ("/command", trajectory, command, later + 4),
    ]


def write_bag(path: Path, steps: int = 8, storage: str = "mcap", order=None) -> Path:
    """A robot's bag, written by the rosbags library; `order` rearranges its messages."""
    from rosbags.rosbag2 import StoragePlugin, Writer
    from rosbags.typesys import Stores, get_typestore

    store = get_typestore(Stores.ROS2_JAZZY)
    words = ("/instruction", "std_msgs/msg/String", text_message(WORDS), 1_000_000_000)
    messages = [words, *(message for i in range(steps) for message in sent(i)[1])]
    with Writer(path, version=9, storage_plugin=StoragePlugin[storage.upper()]) as writer:
        topics = {}
        for topic, kind, data, log_ns in order(messages) if order else messages:
            if topic not in topics:
                topics[topic] = writer.add_connection(topic, kind, typestore=store)
            writer.write(topics[topic], log_ns, data)
    return path
