"""A replay answers on what the recording ran on, unless another engine is asked for."""

from __future__ import annotations

import json

import pytest

from leanvla.cli import main
from leanvla.commands import replay_engine
from leanvla.commands.replay import Replay
from leanvla.commands.replay_engine import make_policy_source
from leanvla.commands.rollout_engine import Runtimes
from sim.rollout.types import Cell

DENSE, PRUNED = Cell("dense", 1.0), Cell("vla_pruner", 0.25)
FACTS = {"policy": "mini", "method": "vla_pruner", "keep": 0.25}
HASH = "0123"


@pytest.fixture
def chosen(monkeypatch):
    """What `auto` would choose here, and what was asked."""
    asked = []

    def choose(policy, engine, cells, option):
        asked.append(engine)
        if engine == "torch":
            return Runtimes({}, dict.fromkeys(cells, "asked for"))
        return Runtimes(dict.fromkeys(cells, "/cache/mini"), {})

    monkeypatch.setattr(replay_engine, "choose_runtimes", choose)
    monkeypatch.setattr("policy.registry.engine_sha256", lambda folder: HASH)
    return asked


def source_of(facts, **options):
    return make_policy_source(Replay("bag", **options), facts)


@pytest.mark.parametrize("facts", [{}, FACTS, FACTS | {"engine": ""}])
def test_torch_answers_again_where_no_engine_is_named(chosen, facts):
    source = source_of(facts)
    assert chosen == ["torch"]
    assert source.engines == {}
    assert set(source.notes.values()) == {"the recording names no engine"}


def test_nobody_needs_no_engine(chosen):
    assert source_of(FACTS | {"engine": HASH}, policy="none").engines == {}
    assert chosen == []


def test_an_engine_answers_again_where_one_answered(chosen, capsys):
    source = source_of(FACTS | {"engine": HASH})
    assert source.engines == dict.fromkeys((DENSE, PRUNED), "/cache/mini")
    assert chosen == ["auto"]
    assert capsys.readouterr().err == ""


def test_another_engine_than_the_recorded_one_is_said(chosen, capsys):
    source_of(FACTS | {"engine": "9999"})
    assert "vla_pruner @ 0.25 was recorded on another engine" in capsys.readouterr().err


def test_another_policy_is_held_to_no_engine(chosen, capsys):
    source_of(FACTS | {"engine": "9999", "policy": "elsewhere"})
    assert capsys.readouterr().err == ""


def test_what_is_asked_for_goes_first(chosen):
    source_of(FACTS | {"engine": HASH}, engine="torch")
    assert chosen == ["torch"]


@pytest.mark.slow
@pytest.mark.gl
@pytest.mark.timeout(600)
def test_a_rollout_on_the_engine_replays_bit_for_bit_from_its_folder(tmp_path):
    taped, out = tmp_path / "taped", tmp_path / "replay"
    grid = ["--method", "vla_pruner", "--keep", "0.25"]
    roll = ["--episodes", "1", "--workers", "1", "--video", "0", "--out", str(taped)]
    assert main(["rollout", *roll, *grid, "--record", str(tmp_path / "bags")]) == 0
    replay = ["replay", str(taped), "--episode", "1", *grid]
    assert main([*replay, "--out", str(out)]) == 0
    _, run = json.loads((out / "metrics.json").read_text())["runs"]
    again = run["recorded_decisions"]
    assert run["engine"].startswith("onnxruntime")
    assert again["same_cell"]
    assert again["identical"] == again["compared"] > 5
    short = ["--limit", "3", "--out", str(tmp_path / "torch")]
    assert main([*replay, "--engine", "torch", *short]) == 0  # compared, and no promise broken
    _, run = json.loads((tmp_path / "torch/metrics.json").read_text())["runs"]
    assert run["engine"].startswith("torch")
    assert not run["recorded_decisions"]["same_cell"]
