"""A replay answers on what the recording ran on, unless another engine is asked for."""

from __future__ import annotations

import json

import pytest

from leanvla.cli import main
from leanvla.commands import replay_engine
from leanvla.commands.replay import Replay
from leanvla.commands.replay_engine import engines_for
from sim.rollout.types import Cell

DENSE, PRUNED = Cell("dense", 1.0), Cell("vla_pruner", 0.25)
FACTS = {"policy": "mini", "method": "vla_pruner", "keep": 0.25}


@pytest.fixture
def chosen(monkeypatch):
    """What `auto` would choose here, and what was asked."""
    asked = []

    def find(config, cells):
        asked.append(config.engine)
        return {cell: "/cache/mini-0123" for cell in cells}, {}

    monkeypatch.setattr(replay_engine, "find_engines", find)
    return asked


def engines(facts, **options):
    return engines_for(Replay("bag", **options), facts, (DENSE, PRUNED))


def test_torch_answers_again_where_torch_answered(chosen):
    assert engines(FACTS | {"engine": ""}) == engines({}) == {}
    assert chosen == []


def test_nobody_needs_no_engine(chosen):
    assert engines(FACTS | {"engine": "/cache/mini-0123"}, policy="none") == {}


@pytest.mark.parametrize("folder", ["/cache/mini-0123", "/another/home/mini-0123"])
def test_an_engine_is_the_same_wherever_its_cache_lies(chosen, folder, capsys):
    assert engines(FACTS | {"engine": folder}) == dict.fromkeys((DENSE, PRUNED), "/cache/mini-0123")
    assert chosen == ["auto"]
    assert capsys.readouterr().err == ""


def test_an_engine_that_is_not_here_is_said(chosen, capsys):
    engines(FACTS | {"engine": "/gone/mini-9999"})
    assert "vla_pruner @ 0.25 was recorded on /gone/mini-9999" in capsys.readouterr().err


def test_an_engine_of_ones_own_is_taken_from_its_folder(chosen, monkeypatch, tmp_path):
    given = {PRUNED: str(tmp_path)}
    monkeypatch.setattr(replay_engine, "given_engine", lambda engine, checkpoint, wanted: given)
    assert engines(FACTS | {"engine": str(tmp_path)}) == {DENSE: "/cache/mini-0123"} | given


def test_another_policy_never_runs_on_the_recorded_engine(chosen, tmp_path):
    found = engines(FACTS | {"engine": str(tmp_path), "policy": "elsewhere"})
    assert found[PRUNED] == "/cache/mini-0123"


def test_what_is_asked_for_goes_first(chosen):
    engines(FACTS | {"engine": "/gone/mini-9999"}, engine="torch")
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
