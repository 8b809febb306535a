"""The verb as a user meets it: real processes, fake physics."""

from __future__ import annotations

import json

import pytest

from leanvla.cli import main
from leanvla.commands.sweep_file import read_sweep
from leanvla.errors import UsageError
from pruning.registry import make_method
from sim.analysis.runs import read_run
from sim.sweep.identity import identity_of
from tests.house.rules import ROOT

FILE = """
suites: [{name: "tests.sim.fakes:FakeSuite", label: fake}]
policies: [{name: "tests.sim.fakes:FakePolicy", label: walker}, expert]
methods: [random, vla_pruner]
keep: [1.0, 0.25]
seeds: %d
"""


@pytest.fixture
def sweep(tmp_path):
    """Write a file with so many seeds, sweep it into a store, and give the exit code."""

    def run(store, *more, seeds=2, text=FILE):
        path = tmp_path / "sweep.yaml"
        path.write_text(text % seeds if "%d" in text else text)
        return main(["sweep", str(path), "--out", str(tmp_path / store), "--workers", "1", *more])

    return run


def lines(folder):
    return {
        path.parent.name.rpartition("-")[0]: [json.loads(x) for x in path.read_text().splitlines()]
        for path in folder.glob("runs/*/episodes.jsonl")
    }


def test_a_sweep_is_a_store_that_resumes_and_grows(tmp_path, sweep, capsys):
    assert sweep("a") == 0
    shown = capsys.readouterr()
    assert "fake × walker: 10 of 10 episodes" in shown.out
    assert "fake × expert: 2 of 2 episodes" in shown.out
    assert "12/12 episodes" in shown.err
    store = tmp_path / "a"
    assert {path.name for path in store.iterdir()} == {
        *("sweep.yaml", "episodes.parquet", "runs", ".lock")
    }
    first = lines(store)
    assert {name: len(found) for name, found in first.items()} == {
        "fake-walker": 10,
        "fake-expert": 2,
    }
    (folder,) = store.glob("runs/fake-walker-*")
    assert {path.name for path in folder.iterdir()} == {
        *("run.json", "episodes.jsonl", "config.yaml", "env.json", "metrics.json", "report.html"),
        "workers.log",
    }
    assert sweep("a") == 0
    assert lines(store) == first  # nothing ran again
    assert sweep("a", seeds=3) == 0
    grown = lines(store)
    assert grown["fake-walker"][:10] == first["fake-walker"]
    assert len(grown["fake-walker"]) == 15
    assert "17/18 episodes" in capsys.readouterr().err


def test_shards_of_two_machines_make_the_whole(tmp_path, sweep, capsys):
    assert sweep("one", "--shard", "1/2", seeds=3) == 0
    assert sweep("two", "--shard", "2/2", seeds=3) == 0
    assert main(["sweep", "status", str(tmp_path / "two")]) == 1
    said = capsys.readouterr().err
    assert "fake × walker, random @ 0.25: 2 seed(s) missing: 0, 2" in said
    stores = [str(tmp_path / name) for name in ("one", "two")]
    assert main(["sweep", "merge", *stores, "--out", str(tmp_path / "both"), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["missing"] == 0
    assert {(r["suite"], r["policy"], r["episodes"]) for r in shown["runs"]} == {
        ("fake", "walker", 3),
        ("fake", "expert", 3),
    }
    assert (tmp_path / "both" / "episodes.parquet").is_file()


def test_other_code_does_not_go_into_the_same_store(tmp_path, sweep, capsys, monkeypatch):
    assert sweep("a", seeds=1) == 0
    monkeypatch.setattr("sim.sweep.identity.code_digest", lambda: "f" * 64)
    assert sweep("a", seeds=2) == 2
    said = capsys.readouterr().err
    assert "of another configuration" in said
    assert "and ffffffffffff…" in said
    assert "Traceback" not in said


def test_a_runs_folder_says_what_its_identity_says(tmp_path, sweep, monkeypatch):
    def with_assets(*args, **more):
        found = identity_of(*args, **more)
        suite = {"packages": {"mujoco": "3.3.2"}, "assets": "a" * 64}
        return found | {"suite": found["suite"] | suite}

    monkeypatch.setattr("leanvla.commands.sweep_plan.identity_of", with_assets)
    assert sweep("a", seeds=1) == 0
    for folder in (tmp_path / "a" / "runs").iterdir():
        made_of = {"packages": {"mujoco": "3.3.2"}, "assets": "a" * 64}
        env = json.loads((folder / "env.json").read_text())
        assert env["suite"] == made_of
        assert "mujoco" not in env["packages"]
        assert json.loads((folder / "metrics.json").read_text())["provenance"]["suite"] == made_of
        assert "a" * 64 in (folder / "report.html").read_text()
        assert "assets aaaaaaaaaaaa, run " in str(read_run(folder).setup)


def test_a_plan_counts_and_estimates_and_starts_nothing(tmp_path, sweep, capsys):
    assert sweep("a", "--plan", seeds=4) == 0
    shown = capsys.readouterr()
    assert "24 episodes to run" in shown.out
    assert "fake × walker: nothing was measured yet" in shown.err
    assert not (tmp_path / "a").exists()
    assert sweep("a", seeds=1) == 0
    capsys.readouterr()
    assert sweep("b", "--plan", "--costs", str(tmp_path / "a"), seeds=4) == 0
    shown = capsys.readouterr()
    assert "nothing was measured" not in shown.err
    assert "rests on" in shown.out
    assert not (tmp_path / "b").exists()


def test_a_sweep_that_stops_keeps_its_episodes(tmp_path, sweep, capsys):
    text = FILE.replace("FakePolicy", "RaisingPolicy").replace(", expert]", "]")
    assert sweep("a", text=text.replace("%d", "1")) == 1
    assert "weights are made of cheese" in capsys.readouterr().err
    assert (tmp_path / "a" / "episodes.parquet").is_file()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("sedes: 3\n", "unknown key 'sedes', did you mean 'seeds'?"),
        ("suites: [{name: tabletop, task: [pick]}]\n", "suites[0]: unknown key 'task', did you"),
        ("seeds: 3\nseeds: 4\n", "'seeds' stands twice"),
        ("suites: []\npolicies: [mini]\nmethods: [random]\n", "suites is empty"),
        ("suites: [a]\npolicies: [mini]\nmethods: [random]\nseeds: many\n", "Expected `int`"),
        ("suites: [a]\npolicies: [mini, mini]\nmethods: [random]\n", "'mini' twice"),
        ("suites: [a]\npolicies: [mini]\nmethods: [random]\nseeds: 0\n", "seeds is 0"),
        ("suites: [a]\npolicies: [{name: m, suites: [b]}]\nmethods: [x]\n", "no suite here"),
        ("- a\n", "give keys and values"),
        ("a: [\n", "is no YAML"),
        ("suites: [a]\nmethods: [random]\n", "missing required field `policies`"),
    ],
)
def test_a_file_that_is_wrong_is_refused_in_words(tmp_path, text, says):
    path = tmp_path / "sweep.yaml"
    path.write_text(text)
    with pytest.raises(UsageError) as caught:
        read_sweep(path)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("text", "more", "says"),
    [
        (FILE, ("--shard", "3/2"), "--shard is '3/2'"),
        (FILE, ("--gpus", "0.5"), "add --ray local"),
        (FILE.replace("random", "randon"), (), "randon"),
        (FILE.replace("label: walker", "label: walker, batch: 4"), (), "--ray local"),
        (FILE.replace("label: walker", "label: walker, engine: auto"), (), "depends on what else"),
        (FILE.replace("label: walker", "label: walker, engine: x"), (), "its own runtime"),
        (FILE.replace("label: walker", "engine: x, batch: 2"), (), "leave `batch` and `dtype` out"),
        (FILE.replace("0.25", "2.5"), (), "give ratios in (0, 1]"),
    ],
)
def test_what_cannot_run_is_refused_before_anything_starts(
    tmp_path, sweep, capsys, text, more, says
):
    assert sweep("a", *more, text=text.replace("%d", "1")) == 2
    said = capsys.readouterr().err
    assert says in said
    assert "Traceback" not in said
    assert not (tmp_path / "a" / "runs").exists()


@pytest.mark.parametrize("path", sorted((ROOT / "docs" / "sweeps").glob("*.yaml")), ids=str)
def test_the_files_to_start_from_are_valid(path):
    file = read_sweep(path)
    assert file.suite_entries()
    assert make_method(file.methods[-1], keep=file.keep[0]).prunes


def test_words_that_are_no_file_are_refused(tmp_path, capsys):
    assert main(["sweep", str(tmp_path / "none.yaml")]) == 2
    assert "is no file" in capsys.readouterr().err
    assert main(["sweep", "status", str(tmp_path)]) == 2
    assert "holds no run" in capsys.readouterr().err
    assert main(["sweep", "merge", "--out", str(tmp_path / "c")]) == 2
