"""Several environments in one forward pass keep what each would keep alone."""

from __future__ import annotations

import numpy as np
import pytest

from policy.openvla.policy import OpenVLAPolicy
from policy.types import Observation
from pruning.registry import make_method
from tests.policy.tiny import CONFIGS, write_tiny

WORDS = ("pick up the red cube", "push it left", "pick up the red cube", "stack the blue one")
ROUNDS = 3


def observe(config, environment: int, step: int) -> Observation:
    """Each environment has scenes and words of its own; two of them share words."""
    rng = np.random.default_rng([environment, step])
    images = tuple(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8) for _ in config.views)
    state = rng.normal(size=config.proprio_dim).astype(np.float32) if config.proprio_dim else None
    return Observation(images, state, WORDS[environment], 0.1 * step, environment)


def walk(policy, config, infer):
    """A few queries of every environment; environment 1 joins late, so warm-ups differ."""
    states = {e: policy.initial_state() for e in range(len(WORDS))}
    found = []
    for step in range(ROUNDS):
        here = [e for e in states if e != 1 or step]
        answers = infer([observe(config, e, step) for e in here], [states[e] for e in here])
        for environment, answer in zip(here, answers, strict=True):
            states[environment] = answer.state
            found.append(answer)
    return found


METHODS = ("dense", "vla_pruner", "vla_pruner:release", "transprune", "vla_cache", "sparsevlm")


@pytest.mark.parametrize("kind", ["oft_l1", "oft_discrete_3", "fused_ar"])
@pytest.mark.parametrize("name", [*METHODS, "quota+fastv"])
def test_a_batch_keeps_what_each_query_keeps_alone(tmp_path, kind, name):
    config = CONFIGS[kind]
    write_tiny(tmp_path / "tiny", kind)
    key = next(iter(config.norm_stats))
    keep = 1.0 if name == "dense" else 0.5
    try:
        method = make_method(name, keep=keep)
        policy = OpenVLAPolicy.from_folder(tmp_path / "tiny", method=method, unnorm_key=key)
    except ValueError as error:
        pytest.skip(str(error))

    def one_by_one(observations, states):
        return [policy.infer(o, s) for o, s in zip(observations, states, strict=True)]

    alone, together = walk(policy, config, one_by_one), walk(policy, config, policy.infer_batch)
    assert {answer.timing.batch for answer in alone} == {1}
    assert {answer.timing.batch for answer in together} == {3, 4}
    for a, b in zip(alone, together, strict=True):
        assert len(a.chunk.kept) == len(b.chunk.kept) == len(config.views)
        for kept, same in zip(a.chunk.kept, b.chunk.kept, strict=True):
            assert np.array_equal(kept, same)
        np.testing.assert_allclose(a.chunk.actions, b.chunk.actions, atol=2e-5)
        assert a.timing.kept_tokens == b.timing.kept_tokens
        assert a.timing.dense_warmup == b.timing.dense_warmup
        assert len(a.state.entries) == len(b.state.entries)
        for entry, same in zip(a.state.entries, b.state.entries, strict=True):
            np.testing.assert_allclose(entry, same, atol=1e-5)
