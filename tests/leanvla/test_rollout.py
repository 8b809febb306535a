"""The verb as a user meets it: real processes, fake physics."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from leanvla.cli import main
from leanvla.commands.rollout import Rollout
from leanvla.commands.rollout_plan import make_plan
from leanvla.commands.rollout_results import Results
from sim.rollout.types import Cell

FAKES = ("--suite", "tests.sim.fakes:FakeSuite", "--policy", "tests.sim.fakes:FakePolicy")
KEYS = {
    *("suite", "policy", "method", "keep", "episodes", "successes", "failures", "errors"),
    *("success_rate", "success_ci95", "query_latency_ms", "phase_latency_ms"),
    *("dense_query_latency_ms", "speedup_p50", "speedup_ceiling", "steps_per_s", "tokens"),
    *("pruner", "paired_difference_to_dense", "tasks", "wrong_object_rate", "engine"),
}


def rollout(out, *more):
    return main(["rollout", *FAKES, "--out", str(out), "--episodes", "3", "--video", "0", *more])


def episodes(out):
    return [json.loads(line) for line in (out / "episodes.jsonl").read_text().splitlines()]


def test_a_grid_leaves_everything_that_was_promised(tmp_path, capsys):
    out = tmp_path / "run"
    grid = ("--method", "dense,random,vla_pruner", "--keep", "1.0,0.25")
    assert rollout(out, *grid, "--video", "2") == 0
    shown = capsys.readouterr()
    assert [line.split()[0] for line in shown.out.splitlines()[1:]] == [
        "dense",
        *["random"] * 2,
        *["vla_pruner"] * 2,
    ]
    assert "15/15 episodes" in shown.err
    assert {path.name for path in out.iterdir()} == {
        *("config.yaml", "env.json", "episodes.jsonl", "metrics.json", "report.html"),
        *("workers.log", "videos"),
    }
    assert len(list((out / "videos").glob("*.mp4"))) == 2
    runs = json.loads((out / "metrics.json").read_text())["runs"]
    assert len(runs) == 5
    assert all(set(run) >= KEYS for run in runs)
    hashes = {}
    for episode in episodes(out):
        hashes.setdefault(episode["seed"], set()).add(episode["init_state_hash"])
    assert {len(found) for found in hashes.values()} == {1}
    assert (out / "report.html").read_text().count("data:image/png") >= 4


def test_variants_of_a_method_are_cells_of_their_own():
    """What `docs/vla_pruner.md` tells the reader to type."""
    names = ["vla_pruner:hold=zero", "vla_pruner:release"]
    plan = make_plan(Rollout(method=",".join(names), keep="0.5"))
    assert plan.cells == (Cell("dense", 1.0), *(Cell(name, 0.5) for name in names))


def test_json_goes_to_stdout_alone(tmp_path, capsys):
    assert rollout(tmp_path / "run", "--json") == 0
    metrics = json.loads(capsys.readouterr().out)
    assert metrics == json.loads((tmp_path / "run" / "metrics.json").read_text())


def test_a_finished_run_is_not_run_again(tmp_path, capsys):
    assert rollout(tmp_path, "--resume") == 0
    first, table = (tmp_path / "episodes.jsonl").read_bytes(), capsys.readouterr().out
    assert rollout(tmp_path, "--resume") == 0
    shown = capsys.readouterr()
    assert "nothing to do" in shown.err
    assert shown.out == table
    assert (tmp_path / "episodes.jsonl").read_bytes() == first


def test_a_recording_asked_for_later_is_still_made(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("sim.rerun_log.check_rerun", lambda: None)
    monkeypatch.setattr(
        "sim.rerun_log.write_rerun", lambda path, films: path.write_text(str(films))
    )
    out, film = tmp_path / "run", tmp_path / "film.rrd"
    assert rollout(out) == 0
    before = episodes(out)
    assert rollout(out, "--resume", "--rerun", str(film)) == 0
    assert film.is_file()
    assert episodes(out) == before
    assert "nothing to do" not in capsys.readouterr().err


def test_resume_refuses_another_configuration_and_no_resume_refuses_results(tmp_path, capsys):
    assert rollout(tmp_path) == 0
    assert rollout(tmp_path, "--resume", "--seed", "7") == 2
    assert "seed was 0, is 7" in capsys.readouterr().err
    assert rollout(tmp_path) == 2
    assert "--resume" in capsys.readouterr().err
    assert rollout(tmp_path, "--resume", "--workers", "1", "--video", "1") == 0


MADE_OF = {
    "suite": {"packages": {"mujoco": "3.3.2"}, "assets": "a" * 64},
    "policy": {"weights": "b" * 64},
}


@pytest.fixture
def made_of(monkeypatch):
    """Say what the fakes are made of: as of now, as LIBERO and a checkpoint would."""

    def say(provenance):
        place = "leanvla.commands.rollout_provenance.provenance_of"
        monkeypatch.setattr(place, lambda spec: provenance)

    say(MADE_OF)
    return say


def test_results_say_what_they_are_made_of(tmp_path, made_of):
    assert rollout(tmp_path) == 0
    env = json.loads((tmp_path / "env.json").read_text())
    assert {part: env[part] for part in MADE_OF} == MADE_OF
    assert "numpy" in env["packages"]
    assert {"mujoco", "robosuite"}.isdisjoint(env["packages"])  # ours took no part
    assert json.loads((tmp_path / "metrics.json").read_text())["provenance"] == MADE_OF
    report = (tmp_path / "report.html").read_text()
    assert report.count("a" * 64) == report.count("b" * 64) == 1
    assert "3.3.2" in report
    made_of({})
    assert rollout(tmp_path / "ours") == 0
    env = json.loads((tmp_path / "ours" / "env.json").read_text())
    assert {"mujoco", "robosuite"} <= set(env["packages"])


@pytest.mark.parametrize("part", ["weights", "assets"])
def test_a_folder_holds_episodes_of_one_set_of_weights_and_assets(tmp_path, capsys, made_of, part):
    assert rollout(tmp_path) == 0
    before = (tmp_path / "env.json").read_bytes()
    other = {owner: {**facts, part: "c" * 64} for owner, facts in MADE_OF.items() if part in facts}
    made_of(MADE_OF | other)
    assert rollout(tmp_path, "--resume") == 2
    said = capsys.readouterr().err
    assert f"holds episodes of other {part}" in said
    assert "now cccccccccccc" in said
    assert (tmp_path / "env.json").read_bytes() == before


def test_an_older_folder_goes_on_and_its_weights_stay_unknown(tmp_path, capsys, made_of):
    made_of({})
    assert rollout(tmp_path) == 0
    made_of(MADE_OF)
    for _ in range(2):
        assert rollout(tmp_path, "--resume", "--workers", "1") == 0
        assert "does not say of which weights its episodes are" in capsys.readouterr().err
        env = json.loads((tmp_path / "env.json").read_text())
        assert env["policy"] == {}
        assert env["suite"] == {"packages": {"mujoco": "3.3.2"}}


def test_a_torn_last_line_is_run_again(tmp_path, capsys):
    assert rollout(tmp_path) == 0
    path = tmp_path / "episodes.jsonl"
    before = sorted((e["method"], e["seed"], e["steps"]) for e in episodes(tmp_path))
    path.write_bytes(path.read_bytes()[:-7])
    assert rollout(tmp_path, "--resume") == 0
    assert "torn last line" in capsys.readouterr().err
    assert sorted((e["method"], e["seed"], e["steps"]) for e in episodes(tmp_path)) == before


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_keeps_what_is_finished_and_resume_goes_on(tmp_path, stop):
    out = tmp_path / "run"
    slow = ("--suite", "tests.sim.fakes:SlowSuite", "--policy", "tests.sim.fakes:FakePolicy")
    command = [sys.executable, "-m", "leanvla", "rollout", *slow, "--out", str(out)]
    command += ["--episodes", "8", "--video", "0", "--resume"]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    # A background job of a shell inherits an ignored SIGINT; the run under test must not.
    process = subprocess.Popen(
        command,
        env=env,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if (out / "episodes.jsonl").exists() and len(episodes(out)) >= 3:
            break
        time.sleep(0.05)
    process.send_signal(stop)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "go on with --resume" in said
    kept = episodes(out)
    assert 3 <= len(kept) < 16
    assert json.loads((out / "metrics.json").read_text())["runs"]
    assert "Interrupted" in (out / "report.html").read_text()
    assert subprocess.run(command, env=env, check=False, capture_output=True).returncode == 0
    assert episodes(out)[: len(kept)] == kept
    assert len({(e["method"], e["seed"]) for e in episodes(out)}) == 16
    assert "Interrupted" not in (out / "report.html").read_text()


def test_an_interrupt_while_filming_is_made_good_on_resume(tmp_path, capsys, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Results, "film", stop)
        assert rollout(tmp_path, "--video", "1") == 130
    assert "Interrupted" in json.loads((tmp_path / "metrics.json").read_text())["notice"]
    before = episodes(tmp_path)
    assert rollout(tmp_path, "--video", "1", "--resume") == 0
    assert episodes(tmp_path) == before
    assert len(list((tmp_path / "videos").glob("*.mp4"))) == 1
    assert json.loads((tmp_path / "metrics.json").read_text())["notice"] is None
    assert "Interrupted" not in (tmp_path / "report.html").read_text()


def test_no_workers_means_one_per_core(tmp_path):
    assert rollout(tmp_path, "--workers", "0") == 0


def test_lost_episodes_are_errors_in_the_table(tmp_path, capsys):
    faulty = ("--suite", "tests.sim.fakes:CrashingOnOne", "--policy", "tests.sim.fakes:FakePolicy")
    command = ["rollout", *faulty, "--out", str(tmp_path), "--episodes", "3", "--video", "0"]
    assert main([*command, "--json"]) == 0
    shown = capsys.readouterr()
    runs = json.loads(shown.out)["runs"]
    assert [(run["errors"], run["failures"], run["successes"]) for run in runs] == [(1, 0, 2)] * 2
    assert "1 episode(s) were lost" in shown.err


def test_a_pruner_that_never_ran_is_a_failed_check(tmp_path, capsys):
    lazy = ("--suite", "tests.sim.fakes:FakeSuite", "--policy", "tests.sim.fakes:LazyPolicy")
    command = ["rollout", *lazy, "--out", str(tmp_path), "--episodes", "2", "--video", "0"]
    assert main(command) == 1
    assert "the pruner never ran in vla_pruner @ 0.25" in capsys.readouterr().err
    assert not (tmp_path / "metrics.json").exists()


def test_a_policy_that_raises_fails_with_one_line(tmp_path, capsys):
    broken = ("--suite", "tests.sim.fakes:FakeSuite", "--policy", "tests.sim.fakes:RaisingPolicy")
    assert main(["rollout", *broken, "--out", str(tmp_path), "--episodes", "2"]) == 1
    said = capsys.readouterr().err
    assert "weights are made of cheese" in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--keep", "0"), "ratio lies in (0, 1]"),
        (("--keep", "1.5"), "ratios in (0, 1]"),
        (("--keep", "nan"), "ratio lies in (0, 1]"),
        (("--keep", "half"), "give ratios in (0, 1]"),
        (("--keep", "0.5,,0.25"), "separated by single commas"),
        (("--method", "vla_prunner"), "vla_pruner"),
        (("--method", ""), "separated by single commas"),
        (("--suite", "tabeltop"), "did you mean 'tabletop'"),
        (("--policy", "minni"), "unknown policy 'minni'"),
        (("--option", "window"), "give field=value"),
        (("--option", "windw=5"), "window"),
        (("--option", "gamma=abc"), "gamma is 'abc': give a number"),
        (("--option", "keep=0.5"), "keep has a flag of its own"),
        (("--method", "vla_pruner:keep=0.5"), "give it once"),
        (("--method", "vla_pruner:hodl=zero"), "did you mean 'hold'"),
        (("--episodes", "0"), "--episodes is 0: give 1 or more"),
        (("--workers", "-1"), "--workers is -1"),
        (("--execute", "0"), "--execute is 0"),
        (("--video", "-1"), "--video is -1"),
        (("--sim-timeout", "0"), "--sim-timeout is 0"),
        (("--suite", "tabletop", "--render-profile", "pretty"), "lowpoly"),
    ],
)
def test_bad_input_is_refused_before_anything_starts(tmp_path, capsys, arguments, says):
    out = tmp_path / "run"
    assert rollout(out, *arguments) == 2
    said = capsys.readouterr().err
    assert says in said
    assert "Traceback" not in said
    assert not out.exists()


def test_a_missing_rerun_is_said_before_the_run(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "rerun", None)
    out = tmp_path / "run"
    assert rollout(out, "--rerun", str(tmp_path / "a.rrd")) == 3
    assert "pip install" in capsys.readouterr().err
    assert not out.exists()


def test_a_gl_backend_that_cannot_render_is_named_with_its_remedy(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "osmesa_that_is_not")
    out = tmp_path / "run"
    command = ["rollout", "--suite", "tabletop", "--policy", "expert", "--out", str(out)]
    assert main(command) == 3
    said = capsys.readouterr().err
    assert "osmesa_that_is_not" in said
    assert "apt-get install" in said
    assert not out.exists()


@pytest.mark.gl
def test_the_expert_solves_the_tabletop(tmp_path, capsys):
    command = ["rollout", "--suite", "tabletop", "--policy", "expert", "--episodes", "2"]
    assert main([*command, "--video", "1", "--workers", "1", "--out", str(tmp_path), "--json"]) == 0
    shown = capsys.readouterr()
    (run,) = json.loads(shown.out)["runs"]
    assert run["successes"] == 2
    assert run["render_profile"] == "lowpoly"
    assert "nothing to prune" in shown.err
    assert len(list((tmp_path / "videos").glob("dense-seed*-success.mp4"))) == 1
