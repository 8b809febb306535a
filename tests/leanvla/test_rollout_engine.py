"""`--engine` of a rollout: what runs where, and that it is said."""

from __future__ import annotations

import importlib.util
from types import SimpleNamespace

import msgspec
import pytest

from engines.errors import EngineError
from engines.profile.calibrate import product_flop_per_s
from leanvla.commands import rollout_engine
from leanvla.commands.rollout import Rollout
from leanvla.commands.rollout_bound import BOUNDED, tell_bounds
from leanvla.commands.rollout_engine import annotate, with_engines
from leanvla.commands.rollout_plan import make_plan, make_spec
from leanvla.errors import EnvironmentFault, UsageError
from leanvla.report.rollout_torch import torch_section
from sim.metrics import summarise
from sim.rollout.runner import Plan
from sim.rollout.store import EpisodeStore
from sim.rollout.types import Cell, EpisodeRecord

DENSE, HALF, LOT = Cell("dense", 1.0), Cell("vla_pruner", 0.5), Cell("random", 0.5)
GRID = {"method": "vla_pruner,random", "keep": "0.5", "episodes": 1}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LEANVLA_CACHE", str(tmp_path / "cache"))


def source(**options):
    config = Rollout(**{**GRID, **options})
    plan = make_plan(config)
    return with_engines(config, plan, make_spec(config)).policy


def test_auto_takes_engines_where_there_are_some_and_says_where_not(capsys):
    found = source()
    assert set(found.engines) == {DENSE, HALF}
    assert len(set(found.engines.values())) == 1
    assert found.notes == {LOT: "random cannot become a graph"}
    assert "random @ 0.5 runs on torch: random cannot become a graph" in capsys.readouterr().err


def test_dense_runs_where_what_it_is_compared_with_runs():
    alone = source(method="random")
    assert not alone.engines
    assert alone.notes[DENSE] == "no pruned cell of this run has an engine"


def test_torch_is_for_all_or_for_none():
    found = source(engine="torch")
    assert not found.engines
    assert set(found.notes) == {DENSE, HALF, LOT}


def test_a_cell_that_needs_a_torch_that_is_not_there_is_refused(monkeypatch):
    known = importlib.util.find_spec
    monkeypatch.setattr(
        rollout_engine.importlib.util,
        "find_spec",
        lambda name, *more: None if name == "torch" else known(name, *more),
    )
    with pytest.raises(EnvironmentFault, match=r"random @ 0.5 needs torch .*leanvla\[torch\]"):
        source()
    assert source(method="vla_pruner").engines, "the packaged graphs need none"


def test_an_engine_by_name_runs_everything_or_refuses():
    folder = source(method="vla_pruner").engines[DENSE]
    named = source(method="vla_pruner", engine=folder)
    assert set(named.engines.values()) == {folder}
    with pytest.raises(EngineError, match="no rung for random"):
        source(engine=folder)
    with pytest.raises(UsageError, match="give auto, torch, or an engine's folder"):
        source(engine="tensorfow")
    with pytest.raises(UsageError, match="it is an engine itself"):
        source(method="vla_pruner", policy=folder, engine="torch")
    with pytest.raises(UsageError, match="brings its own runtime"):
        source(method="dense", policy="expert", engine="torch")


def test_options_are_part_of_what_a_rung_must_match(monkeypatch):
    asked = []

    def exported(checkpoint, config, name, keeps, progress):
        asked.append((name, list(keeps)))
        return SimpleNamespace(engine=None, reason="not now")

    monkeypatch.setattr("policy.openvla.engine.choose._exported", exported)
    found = source(method="vla_pruner", option=("hold=zero",))
    assert asked == [("vla_pruner:hold=zero", [0.5])]
    assert found.notes[HALF] == "not now"


def record(cell, engine, ms):
    return EpisodeRecord(0, cell.method, cell.keep, "success", query_ms=[ms], engine=engine)


def test_speeds_of_two_runtimes_are_not_divided(tmp_path):
    engine, torch = "onnxruntime cpu fp32", "torch cpu float32"
    plan = Plan((DENSE, HALF, LOT), (0,))
    with EpisodeStore(tmp_path / "episodes.jsonl") as store:
        for cell, kind, ms in ((DENSE, engine, 20.0), (HALF, engine, 10.0), (LOT, torch, 30.0)):
            store.append(record(cell, kind, ms))
        runs = summarise(plan, store, suite="s", policy="p")["runs"]
    annotate(runs, {LOT: "random cannot become a graph"})
    _, half, lot = runs
    assert (half["engine"], half["speedup_p50"], half["engine_note"]) == (engine, 2.0, None)
    assert (lot["engine"], lot["speedup_p50"], lot["speedup_ceiling"]) == (torch, None, None)
    assert lot["engine_note"] == (
        "random cannot become a graph; its speed is not compared with dense on onnxruntime cpu fp32"
    )


def test_a_cell_that_changed_its_runtime_on_resume_has_no_speedup(tmp_path):
    plan = Plan((DENSE,), (0, 1))
    with EpisodeStore(tmp_path / "episodes.jsonl") as store:
        store.append(EpisodeRecord(0, "dense", 1.0, "success", query_ms=[1.0], engine="a"))
        store.append(EpisodeRecord(1, "dense", 1.0, "success", query_ms=[9.0], engine="b"))
        (run,) = summarise(plan, store, suite="s", policy="p")["runs"]
    assert (run["engine"], run["speedup_p50"]) == ("a, b", None)


def lengths(cell, engine, ms, kept):
    """A record that tells how long its sequences were: `kept` in the upper four of six layers."""
    mean = (2 * 352 + 4 * kept) / 6
    return msgspec.structs.replace(
        record(cell, engine, ms),
        sequence_tokens=352,
        kept_sequence_tokens=[kept],
        layer_sequence_tokens=[mean],
    )


def test_a_run_on_an_engine_says_how_slow_torch_must_be(tmp_path):
    """No torch runs in a rollout: the bound comes from counted products and a measured rate."""
    folder = source(method="vla_pruner").engines[DENSE]
    plan = Plan((DENSE, HALF, LOT), (0,))
    with EpisodeStore(tmp_path / "episodes.jsonl") as store:
        store.append(lengths(DENSE, BOUNDED, 20.0, 352))
        store.append(lengths(HALF, BOUNDED, 10.0, 208))
        store.append(record(LOT, "torch cpu float32", 30.0))
        runs = summarise(plan, store, suite="s", policy="mini")["runs"]
        engines = {DENSE: folder, HALF: folder}
        tell_bounds(runs, store.of, Rollout(threads=2), engines, lambda: 50e9)
    dense, half, lot = (run["torch_bound"] for run in runs)
    assert lot is None
    assert dense["macs"] > half["macs"] > 0
    for bound, query_ms in ((dense, 20.0), (half, 10.0)):
        assert bound["flop_per_s"] == 100e9
        assert bound["least_ms"] == pytest.approx(2e3 * bound["macs"] / 100e9)
        assert bound["wanted_torch_ms"] == pytest.approx(1.5 * query_ms)
        assert bound["wanted_torch_rate"] == pytest.approx(bound["least_ms"] / (1.5 * query_ms))
        assert bound["command"] == (
            "leanvla profile --engine mini --torch --method vla_pruner --keep 0.5"
        )
    shown = "".join(torch_section([("dense", runs[0]), ("random", runs[2])]))
    assert "torch was not run here" in shown
    assert dense["command"] in shown
    assert f"<td>{dense['least_ms']:.2f}</td>" in shown
    assert torch_section([("random", runs[2])]) == ()


def test_nothing_is_measured_where_no_float32_engine_ran(tmp_path):
    plan = Plan((DENSE,), (0,))
    with EpisodeStore(tmp_path / "episodes.jsonl") as store:
        store.append(lengths(DENSE, "onnxruntime cpu int8", 20.0, 352))
        runs = summarise(plan, store, suite="s", policy="mini")["runs"]
        tell_bounds(runs, store.of, Rollout(), {}, lambda: pytest.fail("measured for nothing"))
    assert runs[0]["torch_bound"] is None
    assert product_flop_per_s(tries=1) > 1e8
