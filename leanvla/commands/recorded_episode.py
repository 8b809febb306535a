"""Observations of one simulated episode, recorded while an engine acts."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engines.artefact import Engine
    from policy.types import Observation


def record_episode(suite_name: str, engine: Engine, seed: int, most: int) -> list[Observation]:
    """What the dense engine saw in one episode, at most `most` queries of it.

    Raises:
        UsageError: for an unknown suite.
    """
    from policy.openvla.config import load_config
    from policy.openvla.engine.policy import EnginePolicy
    from pruning.registry import make_method
    from sim.rollout.match import match
    from sim.suites import make_suite

    config = load_config(engine.folder / "policy")
    policy = EnginePolicy(engine, make_method("dense"), next(iter(config.norm_stats)))
    suite = make_suite(suite_name)
    try:
        choose = match(policy, suite.spec)
        suite.reset(seed)
        seen: list[Observation] = []
        state, steps = policy.initial_state(), 0
        while len(seen) < most and steps < suite.spec.max_steps:
            seen.append(replace(choose(suite.observe()), episode=seed))
            chunk, state, _ = policy.infer(seen[-1], state)
            for action in chunk.actions[: policy.execute]:
                steps += 1
                if suite.step(action).success:
                    return seen
    finally:
        suite.close()
    return seen
