"""Success of an engine beside its model's, on the same seeds."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from engines.manifest import read_manifest
from leanvla.cli import main
from leanvla.commands import verify_episodes
from leanvla.commands.verify import Verify
from leanvla.errors import INTERRUPTED
from sim.rollout.store import EpisodeStore
from sim.rollout.types import Cell, EpisodeRecord
from sim.statistics import wilson_interval

SEEDS = 40


DENSE, UNIFORM = Cell("dense", 1.0), Cell("uniform", 0.5)


@pytest.fixture
def asked(monkeypatch):
    """What would be rolled out; the reference always succeeds, the engine but on `fails`."""
    seen = SimpleNamespace(runs=[], fails=set(), lost=set(), code=0)

    def roll_out(config):
        seen.runs.append(config)
        config.out.mkdir(parents=True)
        reference = config.out.name == "reference"
        with EpisodeStore(config.out / "episodes.jsonl") as store:
            for seed in range(config.episodes):
                outcome = "success" if reference or seed not in seen.fails else "failure"
                outcome = "error" if reference and seed in seen.lost else outcome
                for cell in (DENSE, UNIFORM):
                    store.append(EpisodeRecord(seed, cell.method, cell.keep, outcome, steps=10))
        print("a table of its own")
        return seen.code

    monkeypatch.setattr("leanvla.commands.rollout.run", roll_out)
    return seen


def compare(tmp_path, plain_engine, capsys, **options):
    engine = SimpleNamespace(folder=plain_engine, manifest=read_manifest(plain_engine))
    config = Verify(
        plain_engine, suite="tabletop", episodes=SEEDS, out=tmp_path / "out", json=True, **options
    )
    code = verify_episodes.compare_episodes(config, engine, engine.manifest.rungs)
    return code, json.loads(capsys.readouterr().out)["cells"]


@pytest.fixture
def plain_engine(tmp_path_factory):
    from tests.engines.plain import write_plain

    folder = tmp_path_factory.mktemp("plain") / "engine"
    write_plain(folder)
    return folder


def test_both_run_the_rungs_of_the_engine_on_the_same_seeds(asked, tmp_path, plain_engine, capsys):
    asked.fails, asked.lost = {3}, {5}
    code, cells = compare(tmp_path, plain_engine, capsys)
    assert code == 0
    reference, engine = asked.runs
    assert (reference.engine, engine.engine) == ("torch", str(plain_engine))
    assert (reference.method, reference.keep) == (engine.method, engine.keep) == ("uniform", "0.5")
    assert reference.resume
    assert engine.resume
    assert [cell["cell"] for cell in cells] == ["dense", "uniform @ 0.5"]
    for cell in cells:
        assert cell["episodes"] == SEEDS - 1
        assert (cell["reference_successes"], cell["engine_successes"]) == (SEEDS - 1, SEEDS - 2)
        assert cell["same_outcome_and_steps"] == SEEDS - 2
        assert (cell["gained"], cell["lost"], cell["p_value"]) == (0, 1, 1.0)
        assert cell["engine_success_ci95"] == list(wilson_interval(SEEDS - 2, SEEDS - 1))
        assert (cell["verdict"], cell["within_noise"]) == ("no difference shown", True)
    written = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert (written["reference"], written["cells"]) == ("torch", cells)


def test_an_engine_that_fails_more_often_is_a_miss(asked, tmp_path, plain_engine, capsys):
    asked.fails = set(range(12))
    code, cells = compare(tmp_path, plain_engine, capsys)
    assert code == 1
    for cell in cells:
        assert (cell["verdict"], cell["within_noise"]) == ("worse", False)
        assert cell["ci95"][1] < 0
        assert cell["p_holm"] == pytest.approx(2 * cell["p_value"]), "two rungs, one family"


def test_nothing_judged_is_no_pass(asked, tmp_path, plain_engine, capsys):
    asked.lost = set(range(SEEDS))
    code, cells = compare(tmp_path, plain_engine, capsys)
    assert code == 1
    assert [(cell["episodes"], cell["within_noise"]) for cell in cells] == [(0, False)] * 2


def test_an_interrupted_run_is_not_compared(asked, tmp_path, plain_engine):
    asked.code = INTERRUPTED
    config = Verify(plain_engine, suite="tabletop", episodes=SEEDS, out=tmp_path / "out")
    engine = SimpleNamespace(folder=plain_engine, manifest=read_manifest(plain_engine))
    code = verify_episodes.compare_episodes(config, engine, engine.manifest.rungs)
    assert code == INTERRUPTED
    assert len(asked.runs) == 1


def test_the_reference_may_be_another_engine(asked, tmp_path, plain_engine, capsys):
    compare(tmp_path, plain_engine, capsys, against=str(tmp_path / "fp32"))
    assert [run.engine for run in asked.runs] == [str(tmp_path / "fp32"), str(plain_engine)]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--episodes", "3"], "--episodes need a suite"),
        (["--against", "mini"], "--against compares success"),
        (["--episodes", "-1"], "--episodes is -1"),
    ],
)
def test_what_does_not_go_together_is_one_sentence(plain_engine, capsys, arguments, sentence):
    assert main(["verify", str(plain_engine), *arguments]) == 2
    assert sentence in capsys.readouterr().err
