"""`prune` on a policy: another method for a while, the policy's own one afterwards."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from policy.openvla.policy import OpenVLAPolicy
from policy.types import Observation
from pruning.adapters import AdapterError, prune
from pruning.base import MethodError
from pruning.methods.vla_pruner import VLAPruner
from pruning.registry import make_method
from tests.policy.tiny import write_tiny


@pytest.fixture(params=["fused_ar", "oft_l1"])
def policy(request: pytest.FixtureRequest, tmp_path: Path) -> OpenVLAPolicy:
    config = write_tiny(tmp_path / "tiny", request.param)
    key = next(iter(config.norm_stats))
    return OpenVLAPolicy.from_folder(tmp_path / "tiny", unnorm_key=key)


def look(policy: OpenVLAPolicy, seed: int = 0) -> Observation:
    spec, rng = policy.observation_spec, np.random.default_rng(seed)
    images = tuple(rng.integers(0, 255, (32, 32, 3), np.uint8) for _ in spec.views)
    size = policy.config.proprio_dim
    state = rng.normal(size=size).astype(np.float32) if size else None
    return Observation(images, state, "pick up the block")


def test_same_as_a_policy_of_that_method(policy: OpenVLAPolicy, tmp_path: Path) -> None:
    method, seen = VLAPruner(keep=0.25), look(policy)
    runtime = policy.runtime
    dense = policy.infer(seen, policy.initial_state())
    with prune(policy, method) as session:
        pruned = policy.infer(seen, policy.initial_state())
    assert policy.runtime is runtime
    other = OpenVLAPolicy.from_folder(
        tmp_path / "tiny", method=method, unnorm_key=next(iter(policy.config.norm_stats))
    )
    np.testing.assert_array_equal(
        pruned.chunk.actions, other.infer(seen, other.initial_state()).chunk.actions
    )
    again = policy.infer(seen, policy.initial_state()).chunk.actions
    np.testing.assert_array_equal(again, dense.chunk.actions)
    counts = session.counts
    assert (counts.calls, counts.prefills) == (1, 1)
    assert counts.tokens_in[0] == pruned.timing.sequence_tokens == counts.tokens_out[0]
    assert counts.tokens_out[-1] == pruned.timing.kept_sequence_tokens
    assert [len(view) for view in session.kept[0]] == [4] * len(policy.config.views)
    assert counts.decode_steps == (6 if policy.config.decoding != "parallel" else 0)


def test_no_query_is_no_pruned_result(policy: OpenVLAPolicy) -> None:
    with pytest.raises(MethodError, match="never selected a token"), prune(policy, "fastv", 0.5):
        pass
    with prune(policy, make_method("fastv", keep=0.5)):
        policy.infer(look(policy), policy.initial_state())
        with pytest.raises(AdapterError, match="being pruned already"):
            prune(policy, "fastv", 0.5).start()
