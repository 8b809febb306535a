"""`leanvla train` from demonstrations to a policy that loads, at a thousandth of the effort."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

from leanvla.cli import main
from leanvla.commands.rollout_checks import check_suite_ready
from policy.registry import load_policy
from policy.types import Observation
from sim.rollout.match import match
from sim.suites import suite_spec
from sim.suites.environment import SuiteEnvironmentError
from sim.suites.libero.assets import AssetsError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize(("recipe", "init"), [("mini", ()), ("mini-ar", ("--init", "mini"))])
def test_the_whole_chain(
    recipe: str, init: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    demos, out = tmp_path / "demos", tmp_path / "out"
    assert main(["demos", "--episodes", "2", "--workers", "1", "--out", str(demos)]) == 0
    capsys.readouterr()
    verb = ["train", "--recipe", recipe, "--demos", str(demos), "--out", str(out), *init]
    verb += ["--effort", "0.0005", "--corrections", "1", "--workers", "1", "--no-compile"]
    assert main(verb) == 0
    metrics = json.loads(capsys.readouterr().out)
    assert metrics["demonstrations"] == 2
    assert "solved 2 of 2 episodes" in (demos / "report.html").read_text()
    assert "finished alone" in (out / "report.html").read_text()
    assert metrics["corrections"][0]["episodes"] == 1
    policy = load_policy(out / "policy", method="vla_pruner", keep=0.25)
    rng = np.random.default_rng(0)
    seen = Observation(
        tuple(rng.integers(0, 256, (96, 96, 3), np.uint8) for _ in range(2)),
        np.zeros(8, np.float32),
        "pick up the red cube",
    )
    chunk, _, timing = policy.infer(seen, policy.initial_state())
    assert chunk.actions.shape == ((8 if recipe == "mini" else 1), 7)
    assert timing.kept_tokens == 72
    before = (out / "policy" / "SHA256").read_text()
    assert main([*verb, "--resume"]) == 0
    assert json.loads(capsys.readouterr().out) == metrics
    assert (out / "policy" / "SHA256").read_text() == before


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    ("suite", "shown"),
    [
        ("robosuite_lift", ()),
        ("metaworld_mt10", ()),
        ("libero_object", ("--view-size", "96", "--render-profile", "lowpoly")),
    ],
)
def test_another_suite_is_learnt_and_acted_in_by_the_same_commands(
    suite: str, shown: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        check_suite_ready(suite)
    except (SuiteEnvironmentError, AssetsError) as missing:
        pytest.skip(str(missing))
    demos, out, acts = (str(tmp_path / name) for name in ("demos", "out", "acts"))
    common = ["--suite", suite, "--workers", "1"]
    collect = ["demos", *common, *shown, "--episodes", "2", "--noise", "0", "--out", demos]
    assert main(collect) == 0
    verb = ["train", *common, "--recipe", "mini-suite", "--init", "mini", "--no-compile"]
    verb += ["--corrections", "1", "--effort", "0.0003"]
    assert main([*verb, "--demos", demos, "--out", out]) == 0
    spec, policy = suite_spec(suite), load_policy(f"{out}/policy")
    match(policy, spec)
    assert policy.action_spec.dof == spec.action.dof
    rollout = ["rollout", *common, *shown, "--policy", f"{out}/policy", "--engine", "torch"]
    rollout += ["--method", "dense", "--keep", "1.0", "--episodes", "1", "--video", "0"]
    capsys.readouterr()
    assert main([*rollout, "--json", "--out", acts]) == 0
    (run,) = json.loads(capsys.readouterr().out)["runs"]
    assert (run["episodes"], run["errors"]) == (1, 0)
    assert main(["train", "--demos", demos, "--out", str(tmp_path / "x")]) == 2
    assert f"are of {suite}, --suite is tabletop" in capsys.readouterr().err


@pytest.mark.gl
def test_frames_of_another_size_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    demos = tmp_path / "demos"
    collect = ["demos", "--episodes", "1", "--workers", "1", "--view-size", "32"]
    main([*collect, "--out", str(demos)])
    assert main(["train", "--demos", str(demos), "--out", str(tmp_path / "out")]) == 2
    assert "show 32 px frames, the recipe reads 96: record them with" in capsys.readouterr().err


def test_demonstrations_must_exist(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--demos", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    assert "leanvla demos" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--suite", "tabletp"), "did you mean 'tabletop'"),
        (("--suite", "libero_goal"), "libero_goal has no scripted expert"),
        (("--rounds", "-1"), "--rounds is -1: give 0 or more"),
        (("--corrections", "0"), "--corrections is 0: give 1 or more"),
        (("--workers", "-1"), "--workers is -1"),
        (("--init", "absent.safetensors"), "unknown policy 'absent.safetensors'"),
        (("--recipe", "mini-ar"), "give --init mini"),
        (("--recipe", "mini-suite"), "mini-suite goes on from a trained mini"),
    ],
)
def test_bad_input_is_refused_before_anything_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, str], says: str
) -> None:
    out = tmp_path / "out"
    assert main(["train", "--demos", str(tmp_path), "--out", str(out), *arguments]) == 2
    assert says in capsys.readouterr().err
    assert not out.exists()
