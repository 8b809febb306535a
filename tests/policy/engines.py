"""Engines of tiny checkpoints, and queries for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from policy.openvla.config import OpenVLAConfig, load_config
from policy.openvla.engine.plan import make_plan, pruner_of
from policy.openvla.engine.reference import Reference
from policy.openvla.engine.runtime import EngineQuery, EngineRuntime
from policy.openvla.policy import OpenVLAPolicy
from policy.openvla.stopwatch import Stopwatch
from policy.types import Observation
from pruning.registry import make_method

INSTRUCTIONS = ("pick up the cube", "put the red block into the bin", "stop")


def observations(config: OpenVLAConfig, count: int = 8) -> list[Observation]:
    """One episode: five queries with one instruction, then another with each."""
    rng = np.random.default_rng(0)
    side = config.towers[0].image_size
    return [
        Observation(
            tuple(rng.integers(0, 255, (side, side, 3), np.uint8) for _ in config.views),
            rng.normal(0, 0.2, config.proprio_dim).astype(np.float32)
            if config.proprio_dim
            else None,
            INSTRUCTIONS[max(0, step - 4) % len(INSTRUCTIONS)],
            stamp_s=0.1 * step,
        )
        for step in range(count)
    ]


def eager(folder: Path, method: str, keep: float) -> OpenVLAPolicy:
    key = next(iter(load_config(folder).norm_stats))
    return OpenVLAPolicy.from_folder(folder, method=make_method(method, keep=keep), unnorm_key=key)


class ReferencePolicy:
    """The stages of a rung on torch, walked by the engine's runtime."""

    def __init__(
        self, folder: Path, method: str, keep: float, prompt: int = 32, *, fused: bool = False
    ) -> None:
        self.policy = eager(folder, method, keep)
        config = self.policy.config
        plan = make_plan(config, [method], [keep], prompt, fused=fused)
        self.runtime = EngineRuntime(
            Reference(folder, config, plan),
            prompt,
            config,
            plan.rungs[-1],
            pruner_of(make_method(method, keep=keep), config),
        )

    def run(self, seen: Observation, state: Any) -> Any:
        policy = self.policy
        query = EngineQuery(
            policy.processor(seen.images),
            policy.prompt_ids(seen.instruction),
            policy.proprio(seen),
            policy.history_key(seen),
            seen.stamp_s,
        )
        return self.runtime.run(query, state, Stopwatch())
