"""Fakes that tell the truth, save their state, and lose an episode at a known step.

The task: walk right along a line to the target. `CliffSuite` has a pit on the left: who falls into
it never comes out. A policy that prunes takes one wrong step there, or stands still.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from policy.types import ActionChunk, Inference, Observation, Timing
from sim.suites.base import StepResult, SuiteSpec
from tests.sim.fakes import ACTION, OBSERVATION, FakePolicy, FakeSuite

PIT = -0.25
JUMPS, FREEZES, STICKS = "random", "uniform", "fastv"  # methods that a rollout knows
WRONG_QUERY = 3


class TruthfulSuite(FakeSuite):
    """The object is the point's column in the front view; the wrist never sees it."""

    def __init__(self, **_: object) -> None:
        super().__init__()
        self.spec = dataclasses.replace(self.spec, roles=("object",), saves=True)

    def roles(self) -> dict[str, str]:
        return {"object": "point"}

    def phase(self) -> str:
        return "reach" if abs(self.x - self.target) > 0.15 else "arrive"

    def segmentation(self, view: str) -> tuple[np.ndarray, dict[int, str]]:
        mask = np.zeros((96, 96), np.int32)
        if view == "front":
            mask[:, self.render(view, 96)[0, :, 2] == 220] = 1
        return mask, {1: "point"}

    def save_state(self) -> np.ndarray:
        return np.array([self.x])

    def load_state(self, state: np.ndarray) -> None:
        self.x = float(state[0])


class CliffSuite(TruthfulSuite):
    """Every target is on the right; below `PIT` there is no way back."""

    def reset(self, seed: int):
        start = super().reset(seed)
        self.target = abs(self.target)
        return start

    def step(self, action: np.ndarray) -> StepResult:
        if self.x <= PIT:
            return StepResult(False, True)
        self.x += float(np.clip(action[0], -0.4, 0.4))
        return StepResult(abs(self.x - self.target) < 0.06, False)


class OneWaySuite(CliffSuite):
    """The same, but it can only begin: an episode that ran on is never returned to."""

    def __init__(self, **_: object) -> None:
        super().__init__()
        self.spec = dataclasses.replace(self.spec, saves=False)

    def save_state(self) -> np.ndarray:
        raise NotImplementedError

    load_state = save_state


class CliffPolicy(FakePolicy):
    """Walks right; pruned, it jumps into the pit at its fourth query, or freezes there.

    Its state counts queries, so a continuation only jumps when it got the state along.
    """

    def infer(self, observation: Observation, state: int) -> Inference:
        step = float(np.clip((observation.state[1] - observation.state[0]) / 4, 0.005, 0.02))
        pruned = self.method != "dense"
        if pruned and self.method == JUMPS and state == WRONG_QUERY:
            step = -0.4
        if pruned and self.method == FREEZES and 0.1 <= observation.state[0] < 0.19:
            step = 0.0
        if pruned and self.method == STICKS and abs(observation.state[0] - 0.16) < 1e-4:
            step = 0.0  # a single point: the least noise mends it
        actions = np.full((4, 1), step, np.float32)
        kept = 144 if not pruned else round(144 * self.keep)
        tokens = tuple(np.arange(kept, dtype=np.int64) for _ in OBSERVATION.views)
        timing = Timing(query_ms=1.0, visual_tokens=288, kept_tokens=2 * kept)
        return Inference(ActionChunk(actions, actions, None, tokens), state + 1, timing)


SPEC = SuiteSpec("fake", OBSERVATION, ACTION, 40, "fast", ("object",), True)
