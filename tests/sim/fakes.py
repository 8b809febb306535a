"""A suite and a policy of a few lines, and suites that really hang, crash and lie.

The task: walk a point on a line to a target. Images show where the point is, so that the policy can
see its way; every claim of the runner can then be tested in milliseconds.
"""

from __future__ import annotations

import dataclasses
import os
import signal
import time
from pathlib import Path

import numpy as np

from policy.types import (
    ActionChunk,
    ActionSpec,
    Inference,
    Observation,
    ObservationSpec,
    Timing,
)
from sim.suites.base import EpisodeStart, StepResult, SuiteSpec

OBSERVATION = ObservationSpec(views=("front", "wrist"), state_names=("x_m", "target_m"))
ACTION = ActionSpec(names=("dx_m",), horizon=4, rate_hz=20.0, rotation="none", gripper="none")
TASKS = ("left", "right")


class FakeSuite:
    """A point on a line; seed decides where it starts and where it should go."""

    def __init__(self, *, max_steps: int = 40, **_: object) -> None:
        self.spec = SuiteSpec("fake", OBSERVATION, ACTION, max_steps, "fast")
        self.x = self.target = 0.0

    def reset(self, seed: int) -> EpisodeStart:
        self.task = TASKS[seed % 2]
        self.x, self.target = 0.0, (-1.0 if seed % 2 == 0 else 1.0) * (0.3 + 0.01 * (seed % 10))
        self.instruction = f"go to the {self.task}"
        return EpisodeStart(self.task, self.instruction, f"{seed:08x}")

    def set_instruction(self, instruction: str) -> None:
        self.instruction = instruction

    def alternative_instruction(self, seed: int) -> str:
        return f"go to the {TASKS[(seed + 1) % 2]}"

    def observe(self) -> Observation:
        state = np.array([self.x, self.target], np.float32)
        images = tuple(self.render(view, 96) for view in OBSERVATION.views)
        return Observation(images, state, self.instruction)

    def step(self, action: np.ndarray) -> StepResult:
        self.x += float(np.clip(action[0], -0.1, 0.1))
        return StepResult(abs(self.x - self.target) < 0.02, self.x * self.target < -0.05)

    def expert_action(self) -> np.ndarray:
        return np.array([self.target - self.x], np.float32)

    def render(self, view: str, size: int) -> np.ndarray:
        frame = np.full((size, size, 3), 200 if view == "front" else 120, np.uint8)
        column = int(np.clip((self.x + 1) / 2, 0, 0.99) * size)
        frame[:, max(0, column - size // 16) : column + size // 16 + 1] = (20, 60, 220)
        return frame

    def close(self) -> None:
        pass


class FakePolicy:
    """Goes where the instruction says; `blind` methods stumble on some seeds."""

    observation_spec = OBSERVATION
    action_spec = ACTION
    execute = 2

    def __init__(self, method: str = "dense", keep: float = 1.0, *, sleep_ms: float = 0.0) -> None:
        self.method, self.keep, self.sleep_ms = method, keep, sleep_ms

    def initial_state(self) -> int:
        return 0

    def infer(self, observation: Observation, state: int) -> Inference:
        time.sleep(self.sleep_ms / 1e3 * self.keep)
        warm = self.method == "vla_pruner" and state < 1
        kept = 144 if self.method == "dense" or warm else max(1, round(144 * self.keep))
        sign = -1.0 if "left" in observation.instruction else 1.0
        stumble = self.method == "random" and abs(observation.state[1]) < 0.325
        step = 0.0 if stumble else sign * min(0.1, abs(sign * 0.4 - observation.state[0]))
        if sign * observation.state[1] > 0 and not stumble:
            step = float(np.clip(observation.state[1] - observation.state[0], -0.1, 0.1)) / 2
        actions = np.full((4, 1), step, np.float32)
        above = 6.0 * (kept * 2 + 40) / 328
        timing = Timing(
            query_ms=4.0 + above,
            phase_ms={"vision": 2.0, "prefill_below": 1.0, "prefill_above": above, "head": 0.5},
            visual_tokens=288,
            kept_tokens=2 * kept,
            dense_warmup=warm,
            sequence_tokens=328,
            kept_sequence_tokens=2 * kept + 40,
        )
        tokens = tuple(np.arange(kept, dtype=np.int64) for _ in OBSERVATION.views)
        return Inference(ActionChunk(actions, actions, None, tokens), state + 1, timing)


class LazyPolicy(FakePolicy):
    """Claims to prune and never does."""

    def __init__(self, method: str = "dense", keep: float = 1.0) -> None:
        super().__init__("dense", 1.0)


class RaisingPolicy(FakePolicy):
    def infer(self, observation: Observation, state: int) -> Inference:
        raise RuntimeError("weights are made of cheese")


class DyingPolicy(FakePolicy):
    """Takes its whole process down, every time."""

    def infer(self, observation: Observation, state: int) -> Inference:
        os.kill(os.getpid(), signal.SIGSEGV)
        raise AssertionError("unreachable")


class HangingPolicy(FakePolicy):
    def infer(self, observation: Observation, state: int) -> Inference:
        time.sleep(3600)
        raise AssertionError("unreachable")


class ForgetfulSuite(FakeSuite):
    """Begins the same seed differently every time."""

    def reset(self, seed: int) -> EpisodeStart:
        return super().reset(seed)._replace(init_state_hash=str(time.monotonic_ns()))


class UnbuildableSuite(FakeSuite):
    def __init__(self, **_: object) -> None:
        raise ValueError("no assets here")


class FaultySuite(FakeSuite):
    """Does `fault` in the third step of the bad seeds: always, or only the first time.

    Args:
        fault: `hang`, `kill`, `exit` or `raise`.
        seeds: the bad seeds.
        once: a folder; a seed that has a file there was bad before and is good now.
        pids: a folder that takes one file per process, named by its id.
    """

    def __init__(
        self, *, fault: str, seeds: list[int], once: str | None = None, pids: str | None = None
    ) -> None:
        super().__init__()
        if pids:
            (Path(pids) / str(os.getpid())).touch()
        self.fault, self.seeds, self.once, self.steps = fault, seeds, once, 0

    def reset(self, seed: int) -> EpisodeStart:
        self.seed, self.steps = seed, 0
        return super().reset(seed)

    def step(self, action: np.ndarray) -> StepResult:
        self.steps += 1
        if self.steps == 3 and self.seed in self.seeds and self._is_due():
            _FAULTS[self.fault]()
        return super().step(action)

    def _is_due(self) -> bool:
        if self.once is None:
            return True
        marker = Path(self.once) / str(self.seed)
        if marker.exists():
            return False
        marker.touch()
        return True


def _raise() -> None:
    raise FloatingPointError("physics exploded")


_FAULTS = {
    "hang": lambda: time.sleep(3600),
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "exit": lambda: os._exit(7),
    "raise": _raise,
}


class ThreadsSuite(FakeSuite):
    """Tells what its process was told about threads, as the task."""

    def reset(self, seed: int) -> EpisodeStart:
        told = (f"{name}={os.environ.get(name)}" for name in ("OMP_NUM_THREADS", "LP_NUM_THREADS"))
        return super().reset(seed)._replace(task=" ".join(told))


class ChestPolicy(FakePolicy):
    observation_spec = ObservationSpec(views=("front", "chest"))


class WristPolicy(FakePolicy):
    """Reads one view and the state in another order than the suite gives it."""

    observation_spec = ObservationSpec(views=("wrist",), state_names=("target_m", "x_m"))

    def infer(self, observation: Observation, state: int) -> Inference:
        observation.check_against(self.observation_spec)
        if observation.images[0][0, -1, 0] != 120:
            raise RuntimeError("this is not the wrist camera")
        observation = dataclasses.replace(observation, state=observation.state[::-1].copy())
        return super().infer(observation, state)


class TalkativeSuite(FakeSuite):
    def __init__(self, **_: object) -> None:
        super().__init__()
        os.write(1, b"hello from the physics\n")


class SlowSuite(FakeSuite):
    def step(self, action: np.ndarray) -> StepResult:
        time.sleep(0.05)
        return super().step(action)


class TracedSuite(FaultySuite):
    """Slow enough to be killed in an episode, and every process of it leaves its id."""

    def __init__(self, *, pids: str) -> None:
        super().__init__(fault="raise", seeds=[], pids=pids)

    def step(self, action: np.ndarray) -> StepResult:
        time.sleep(0.02)
        return super().step(action)


class BatchPolicy(FakePolicy):
    """Answers several observations at once."""

    def infer_batch(self, observations, states) -> list[Inference]:
        answers = [self.infer(o, s) for o, s in zip(observations, states, strict=True)]
        batch = len(answers)
        return [a._replace(timing=dataclasses.replace(a.timing, batch=batch)) for a in answers]


class CrashingOnOne(FaultySuite):
    def __init__(self, **_: object) -> None:
        super().__init__(fault="kill", seeds=[1])
