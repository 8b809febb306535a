"""Policies for nodes under test; no torch, so that a process stands in a second."""

from __future__ import annotations

import time

import numpy as np

from policy.types import ActionChunk, ActionSpec, Inference, ObservationSpec, Timing
from tests.policy.robot.fakes import contract

TOKENS = 16
WRONG = "go wrong"
_CONTRACT = contract()


class Steady:
    """Moves slowly along x, whatever it sees."""

    action_spec = ActionSpec(_CONTRACT.action.names, 8, 20.0)
    execute = 4

    def __init__(self, method: str = "dense", keep: float = 1.0) -> None:
        self.keep = keep
        self.observation_spec = ObservationSpec(
            tuple(camera.view for camera in _CONTRACT.cameras),
            tuple(name for source in _CONTRACT.state for name in source.values),
        )

    def initial_state(self) -> int:
        return 0

    def infer(self, observation, state) -> Inference:
        actions = np.zeros((8, 7), np.float32)
        actions[:, 0], actions[:, 6] = 0.1, -1.0
        kept = np.arange(round(TOKENS * self.keep), dtype=np.int64)
        timing = Timing(0.1, visual_tokens=2 * TOKENS, kept_tokens=2 * len(kept))
        return Inference(ActionChunk(actions, actions, None, (kept, kept)), state + 1, timing)


class OnceTold(Steady):
    """Behaves until it is told `WRONG`."""

    def infer(self, observation, state) -> Inference:
        answer = super().infer(observation, state)
        return self.misbehave(answer) if observation.instruction == WRONG else answer

    def misbehave(self, answer: Inference) -> Inference:
        raise NotImplementedError


class Hanging(OnceTold):
    def misbehave(self, answer):
        time.sleep(3600)
        return answer


class Poisonous(OnceTold):
    def misbehave(self, answer):
        answer.chunk.actions[:] = np.nan
        return answer


class Raising(OnceTold):
    def misbehave(self, answer):
        raise RuntimeError("CUDA error: device lost")


class Foreign(Steady):
    """Says rotations in another convention."""

    action_spec = ActionSpec(_CONTRACT.action.names, 8, 20.0, "rpy_delta")


class Reaching(Steady):
    """Holds the joints of an SO-101 a little away from zero."""

    _contract = contract("so101")
    action_spec = ActionSpec(
        _contract.action.names, 8, 30.0, _contract.action.rotation, _contract.action.gripper
    )

    def __init__(self, method: str = "dense", keep: float = 1.0) -> None:
        super().__init__(method, keep)
        self.observation_spec = ObservationSpec(
            tuple(camera.view for camera in self._contract.cameras),
            tuple(name for source in self._contract.state for name in source.values),
        )

    def infer(self, observation, state) -> Inference:
        answer = super().infer(observation, state)
        actions = np.zeros((8, 6), np.float32)
        actions[:, 0] = 0.02
        return answer._replace(chunk=ActionChunk(actions, actions, None, answer.chunk.kept))


class Cold(Steady):
    """Its first answer takes a thousand times longer than the others."""

    def __init__(self, method: str = "dense", keep: float = 1.0) -> None:
        super().__init__(method, keep)
        self.queries = 0

    def infer(self, observation, state) -> Inference:
        self.queries += 1
        if self.queries == 1:
            time.sleep(0.3)
        return super().infer(observation, state)
