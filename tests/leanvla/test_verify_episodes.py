"""Success of an engine beside its model's, on the same seeds."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from engines.manifest import read_manifest
from leanvla.cli import main
from leanvla.commands import verify_episodes
from leanvla.commands.verify import Verify
from sim.rollout.store import EpisodeStore
from sim.rollout.types import EpisodeRecord

SEEDS = 40


@pytest.fixture
def asked(monkeypatch):
    """What would be rolled out; torch succeeds always, the engine but on the seeds in `fails`."""
    seen = SimpleNamespace(runs=[], fails=set(), lost=set())

    def roll_out(config):
        seen.runs.append(config)
        config.out.mkdir(parents=True)
        torch = config.engine == "torch"
        with EpisodeStore(config.out / "episodes.jsonl") as store:
            for seed in range(config.episodes):
                outcome = "success" if torch or seed not in seen.fails else "failure"
                outcome = "error" if torch and seed in seen.lost else outcome
                store.append(EpisodeRecord(seed, "dense", 1.0, outcome, steps=10))
        print("a table of its own")
        return 0

    monkeypatch.setattr("leanvla.commands.rollout.run", roll_out)
    return seen


def compare(tmp_path, plain_engine, capsys, **options):
    engine = SimpleNamespace(folder=plain_engine, manifest=read_manifest(plain_engine))
    config = Verify(
        plain_engine, suite="tabletop", episodes=SEEDS, out=tmp_path, json=True, **options
    )
    code = verify_episodes.compare_episodes(config, engine)
    return code, json.loads(capsys.readouterr().out)["cells"]


@pytest.fixture
def plain_engine(tmp_path_factory):
    from tests.engines.plain import write_plain

    folder = tmp_path_factory.mktemp("plain") / "engine"
    write_plain(folder)
    return folder


def test_both_run_the_rungs_of_the_engine_on_the_same_seeds(asked, tmp_path, plain_engine, capsys):
    asked.fails, asked.lost = {3}, {5}
    code, (cell,) = compare(tmp_path, plain_engine, capsys)
    assert code == 0
    torch, engine = asked.runs
    assert (torch.engine, engine.engine) == ("torch", str(plain_engine))
    assert (torch.method, torch.keep) == (engine.method, engine.keep) == ("uniform", "0.5")
    assert torch.resume
    assert engine.resume
    assert (cell["cell"], cell["episodes"]) == ("dense", SEEDS - 1)
    assert (cell["torch_successes"], cell["engine_successes"]) == (SEEDS - 1, SEEDS - 2)
    assert cell["same_outcome_and_steps"] == SEEDS - 2
    assert cell["within_noise"]


def test_an_engine_that_fails_more_often_is_a_miss(asked, tmp_path, plain_engine, capsys):
    asked.fails = set(range(12))
    code, (cell,) = compare(tmp_path, plain_engine, capsys)
    assert code == 1
    assert not cell["within_noise"]
    assert cell["ci95"][1] < 0


def test_episodes_need_a_suite(plain_engine, capsys):
    assert main(["verify", str(plain_engine), "--episodes", "3"]) == 2
    assert "--episodes need a suite" in capsys.readouterr().err
