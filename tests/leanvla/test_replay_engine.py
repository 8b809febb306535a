"""A replay answers on what the recording was made on, and finds it in the folder of a rollout."""

from __future__ import annotations

import pytest
import yaml

from leanvla.commands.replay import Replay
from leanvla.commands.replay_plan import make_policy_source, recording_of, runtime_of
from policy.replay.types import ReplayError
from tests.sim.fakes import FakePolicy

TORCH = {"policy": "mini", "method": "vla_pruner", "keep": 0.25}  # as a robot's node writes it


@pytest.mark.parametrize(
    ("facts", "policy", "engine", "runs"),
    [
        (TORCH, "mini", "recorded", "torch"),
        (TORCH | {"engine": ""}, "mini", "recorded", "torch"),
        (TORCH | {"engine": "0123"}, "mini", "recorded", "auto"),
        ({}, "mini", "recorded", "auto"),  # somebody else's recording
        (TORCH | {"policy": "elsewhere"}, "mini", "recorded", "auto"),
        (TORCH | {"policy": "module:name"}, "module:name", "recorded", "auto"),  # has its own
        (TORCH, "mini", "auto", "auto"),
        ({}, "mini", "torch", "torch"),
    ],
)
def test_what_answered_answers_again_unless_another_is_asked_for(facts, policy, engine, runs):
    assert runtime_of(Replay("bag", policy=policy, engine=engine), facts) == runs


def test_why_it_is_torch_is_said():
    pytest.importorskip("torch")
    source = make_policy_source(Replay("bag"), TORCH)
    assert source.engines == {}
    assert set(source.notes.values()) == {"the recording was made on torch"}


def test_a_policy_of_ones_own_needs_no_engine():
    name = f"{FakePolicy.__module__}:{FakePolicy.__name__}"
    assert make_policy_source(Replay("bag", policy=name), {"policy": name}).engines == {}


def test_a_rollouts_folder_stands_for_its_bags(tmp_path):
    assert recording_of(tmp_path) == tmp_path
    (tmp_path / "episodes.jsonl").touch()
    with pytest.raises(ReplayError, match="recorded nothing: run it again with --record"):
        recording_of(tmp_path)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"record": str(tmp_path / "bags")}))
    assert recording_of(tmp_path) == tmp_path / "bags"
