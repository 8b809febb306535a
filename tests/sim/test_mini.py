"""The shipped policy acts: the weights in the tree, the real simulator, held-out seeds."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

from policy.registry import load_policy, resolve_policy

if TYPE_CHECKING:
    from policy.openvla.policy import OpenVLAPolicy
    from sim.suites.tabletop.suite import Tabletop

SEEDS = range(50_000, 50_012)
"""Twelve scenes that no table is measured on."""


def succeeds(suite: Tabletop, policy: OpenVLAPolicy, seed: int) -> bool:
    suite.reset(seed)
    state, steps = policy.initial_state(), 0
    while steps < suite.spec.max_steps:
        chunk, state, _ = policy.infer(suite.observe(), state)
        for action in chunk.actions[: policy.execute]:
            steps += 1
            if suite.step(action).success:
                return True
    return False


@pytest.mark.parametrize(("method", "keep"), [("dense", 1.0), ("vla_pruner", 0.5)])
def test_mini_acts(tabletop: Tabletop, method: str, keep: float) -> None:
    """A loose floor, far below the measured rate: it catches a broken chain, not a worse policy."""
    policy = load_policy("mini", method=method, keep=keep)
    done = sum(succeeds(tabletop, policy, seed) for seed in SEEDS)
    assert done >= len(SEEDS) // 2


def test_keeping_everything_is_dense_on_real_frames(tabletop: Tabletop) -> None:
    tabletop.reset(SEEDS[0])
    observation = tabletop.observe()
    dense = load_policy("mini")
    wanted = dense.infer(observation, dense.initial_state()).chunk
    for method in ("random", "uniform", "fastv", "prefill_mean", "vla_pruner"):
        policy = load_policy("mini", method=method, keep=1.0)
        chunk = policy.infer(observation, policy.initial_state()).chunk
        np.testing.assert_array_equal(chunk.actions, wanted.actions)


def test_weights_are_the_ones_of_the_ledger() -> None:
    folder = resolve_policy("mini")
    for line in (folder / "SHA256").read_text().splitlines():
        digest, name = line.split()
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest
    assert (folder / "model.safetensors").stat().st_size < 30e6
    tokens = json.loads((folder / "config.json").read_text())["leanvla"]["towers"][0]
    assert (tokens["image_size"] // tokens["patch_size"]) ** 2 >= 128
