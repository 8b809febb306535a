"""Normalisation statistics of a data set, in the layout of `config.norm_stats`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from jaxtyping import Float32

MIN_RANGE = 0.02
"""A dimension whose q01 ... q99 span less carries no signal and is left as it is (mask False)."""


def norm_stats(
    states: Float32[np.ndarray, "n s"],
    actions: Float32[np.ndarray, "n dof"],
    episodes: int,
) -> dict[str, Any]:
    """Statistics of one data set. The last action dimension is the gripper, never rescaled.

    Nor is one that spans -1 ... 1 already, as where an expert commands all that the controller
    takes: nothing would change, and a checkpoint in which no statistic changes anything is refused.
    """
    action = _describe(actions)
    low, high = np.asarray(action["q01"]), np.asarray(action["q99"])
    rescaled = (high - low > MIN_RANGE) & ~((low == -1.0) & (high == 1.0))
    action["mask"] = [*map(bool, rescaled[:-1]), False]
    return {
        "action": action,
        "proprio": _describe(states),
        "num_trajectories": episodes,
        "num_transitions": len(actions),
    }


def normalise_actions(
    actions: Float32[np.ndarray, "n dof"], stats: dict[str, Any]
) -> Float32[np.ndarray, "n dof"]:
    """Actions in [-1, 1]: q01 ... q99 where the mask says so, untouched elsewhere."""
    low, high = (np.asarray(stats["action"][name], np.float32) for name in ("q01", "q99"))
    scaled = 2 * (actions - low) / (high - low + 1e-8) - 1
    return np.clip(np.where(stats["action"]["mask"], scaled, actions), -1, 1).astype(np.float32)


def normalise_proprio(
    states: Float32[np.ndarray, "n s"], stats: dict[str, Any]
) -> Float32[np.ndarray, "n s"]:
    """Proprioception in [-1, 1] by q01 ... q99, clipped."""
    low, high = (np.asarray(stats["proprio"][name], np.float32) for name in ("q01", "q99"))
    return np.clip(2 * (states - low) / (high - low + 1e-8) - 1, -1, 1).astype(np.float32)


def _describe(values: np.ndarray) -> dict[str, Any]:
    values = values.astype(np.float64)
    quantiles = np.quantile(values, [0.01, 0.99], axis=0)
    table = {
        "mean": values.mean(0),
        "std": values.std(0),
        "min": values.min(0),
        "max": values.max(0),
        "q01": quantiles[0],
        "q99": quantiles[1],
    }
    return {name: np.round(value, 6).tolist() for name, value in table.items()}
