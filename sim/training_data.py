"""Demonstrations on disk to what `policy.training` learns from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from policy.training.data import TrainingData
from policy.training.statistics import norm_stats, normalise_actions, normalise_proprio
from sim.demos import Episode, read_shards

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path


def load_episodes(folders: Sequence[Path]) -> list[Episode]:
    """All episodes of some folders of shards.

    Raises:
        ValueError: when there is none.
    """
    episodes = [episode for folder in folders for episode in read_shards(folder)]
    if not episodes:
        names = ", ".join(map(str, folders))
        raise ValueError(f"no demonstrations in {names}: make some with `leanvla demos --out DIR`")
    return episodes


def episode_stats(episodes: Sequence[Episode]) -> dict[str, Any]:
    """Normalisation statistics over expert demonstrations."""
    return norm_stats(
        np.concatenate([e.arrays["states"] for e in episodes]),
        np.concatenate([e.arrays["actions"] for e in episodes]),
        len(episodes),
    )


def training_data(
    episodes: Sequence[Episode],
    stats: dict[str, Any],
    encode: Callable[[str], list[int]],
    correction_weight: float = 1.0,
) -> TrainingData:
    """Lay episodes end to end.

    Args:
        episodes: demonstrations and corrections.
        stats: normalisation, as `episode_stats` gives it.
        encode: instruction to prompt ids, BOS first.
        correction_weight: how often a step of a correction (`dagger`) is drawn, relative to one of
            a demonstration.
    """

    def join(name: str) -> np.ndarray:
        return np.concatenate([e.arrays[name] for e in episodes])

    steps = [e.steps for e in episodes]
    instructions = sorted({e.instruction for e in episodes})
    number = {text: i for i, text in enumerate(instructions)}
    eye = join("states")[:, :3]
    goal = join("goal_xyz")
    relative = np.concatenate([join("target_xyz") - eye, goal - eye], 1)
    weight = [correction_weight if e.source == "dagger" else 1.0 for e in episodes]
    return TrainingData(
        frames=[e.arrays["frames"] for e in episodes],
        proprio=normalise_proprio(join("states"), stats),
        actions=normalise_actions(join("actions"), stats),
        episode=np.repeat(np.arange(len(episodes)), steps),
        prompt=np.repeat([number[e.instruction] for e in episodes], steps),
        prompts=[encode(text) for text in instructions],
        points=np.nan_to_num(np.stack([join("target_uv"), join("goal_uv")], 2)),
        visible=np.stack([join("target_visible"), join("goal_visible")], 2),
        positions=np.nan_to_num(relative).astype(np.float32),
        has_goal=np.isfinite(goal).all(1),
        weight=np.repeat(np.array(weight, np.float32), steps),
    )
