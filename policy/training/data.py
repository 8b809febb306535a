"""Demonstrations as training batches: frames stay on disk, everything small is in memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaxtyping import Bool, Float32, Int64, UInt8


class Batch(NamedTuple):
    """One training batch; every prompt in it has the same length, so that nothing is padded."""

    frames: UInt8[np.ndarray, "b v h w 3"]
    input_ids: Int64[np.ndarray, "b t"]
    proprio: Float32[np.ndarray, "b p"]
    actions: Float32[np.ndarray, "b chunk dof"]
    points: Float32[np.ndarray, "b v 2 2"]
    visible: Bool[np.ndarray, "b v 2"]
    positions: Float32[np.ndarray, "b 6"]
    has_goal: Bool[np.ndarray, " b"]


@dataclass(frozen=True)
class TrainingData:
    """Steps of many episodes, laid end to end.

    Attributes:
        frames: one array (or memory map) `[t, v, h, w, 3]` per shard.
        proprio: normalised proprioception `[n, p]`.
        actions: normalised expert actions `[n, dof]`.
        episode: episode number of every step; a chunk never reaches into the next episode.
        prompt: index into `prompts` of every step.
        prompts: token ids, BOS first.
        points: image positions of target and goal, `[n, v, 2, 2]` in 0..1 (u, v).
        visible: whether they are inside the frame and exist, `[n, v, 2]`.
        positions: target and goal relative to the gripper, metres, `[n, 6]`.
        has_goal: whether the task has a goal place, `[n]`.
        weight: how often a step is drawn, relative to the others.
    """

    frames: Sequence[UInt8[np.ndarray, "t v h w 3"]]
    proprio: Float32[np.ndarray, "n p"]
    actions: Float32[np.ndarray, "n dof"]
    episode: Int64[np.ndarray, " n"]
    prompt: Int64[np.ndarray, " n"]
    prompts: Sequence[Sequence[int]]
    points: Float32[np.ndarray, "n v 2 2"]
    visible: Bool[np.ndarray, "n v 2"]
    positions: Float32[np.ndarray, "n 6"]
    has_goal: Bool[np.ndarray, " n"]
    weight: Float32[np.ndarray, " n"]

    def __len__(self) -> int:
        """Steps."""
        return len(self.actions)


class Sampler:
    """Draws batches for ever: steps by weight, one prompt length per batch."""

    def __init__(self, data: TrainingData, *, batch: int, chunk: int, seed: int) -> None:
        self.data, self.batch, self.chunk = data, batch, chunk
        self.rng = np.random.default_rng(seed)
        self.starts = np.cumsum([0, *(len(shard) for shard in data.frames)])
        self.last = np.flatnonzero(np.r_[np.diff(data.episode) != 0, True])
        length = np.array([len(prompt) for prompt in data.prompts])[data.prompt]
        self.buckets = [np.flatnonzero(length == size) for size in np.unique(length)]
        mass = np.array([data.weight[bucket].sum() for bucket in self.buckets], np.float64)
        self.bucket_odds = mass / mass.sum()
        self.odds = [
            data.weight[bucket].astype(np.float64) / data.weight[bucket].sum(dtype=np.float64)
            for bucket in self.buckets
        ]

    def draw(self) -> Batch:
        """The next batch."""
        return self.gather(self._steps())

    def skip(self, batches: int) -> None:
        """Go on as if so many batches had been drawn."""
        for _ in range(batches):
            self._steps()

    def _steps(self) -> Int64[np.ndarray, " b"]:
        which = self.rng.choice(len(self.buckets), p=self.bucket_odds)
        return self.rng.choice(self.buckets[which], self.batch, p=self.odds[which])

    def gather(self, steps: Int64[np.ndarray, " b"]) -> Batch:
        """The batch of the given steps."""
        data = self.data
        end = self.last[np.searchsorted(self.last, steps)]
        rows = np.minimum(steps[:, None] + np.arange(self.chunk), end[:, None])
        return Batch(
            frames=self._frames(steps),
            input_ids=np.array([data.prompts[p] for p in data.prompt[steps]], np.int64),
            proprio=data.proprio[steps],
            actions=data.actions[rows],
            points=data.points[steps],
            visible=data.visible[steps],
            positions=data.positions[steps],
            has_goal=data.has_goal[steps],
        )

    def _frames(self, steps: Int64[np.ndarray, " b"]) -> UInt8[np.ndarray, "b v h w 3"]:
        shard = np.searchsorted(self.starts, steps, side="right") - 1
        return np.stack(
            [
                self.data.frames[s][step - self.starts[s]]
                for s, step in zip(shard, steps, strict=True)
            ]
        )
