"""`leanvla train` from demonstrations to a policy that loads, at a thousandth of the effort."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

from leanvla.cli import main
from policy.registry import load_policy
from policy.types import Observation
from sim.rollout.match import match
from sim.suites import suite_spec
from sim.suites.environment import environments

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
@pytest.mark.parametrize("suite", ["robosuite_lift", "metaworld_mt10"])
def test_another_suite_is_learnt_by_the_same_commands(
    suite: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if suite.startswith("metaworld") and not environments()["metaworld"].installed:
        pytest.skip("Meta-World's environment is missing: leanvla suites install metaworld")
    demos, out = tmp_path / "demos", tmp_path / "out"
    collect = ["demos", "--suite", suite, "--episodes", "2", "--workers", "1", "--noise", "0"]
    assert main([*collect, "--out", str(demos)]) == 0
    verb = ["train", "--suite", suite, "--demos", str(demos), "--out", str(out), "--rounds", "0"]
    assert main([*verb, "--effort", "0.0003", "--workers", "1", "--no-compile"]) == 0
    capsys.readouterr()
    spec, policy = suite_spec(suite), load_policy(out / "policy")
    match(policy, spec)
    assert policy.action_spec.dof == spec.action.dof
    other = [
        "train",
        "--suite",
        "libero_object",
        "--demos",
        str(demos),
        "--out",
        str(tmp_path / "x"),
    ]
    if suite.startswith("metaworld"):
        assert main(other) == 2
        assert "4 state and 4 action values, --suite has 2, 8 and 7" in capsys.readouterr().err


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
    ],
)
def test_bad_input_is_refused_before_anything_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, str], says: str
) -> None:
    out = tmp_path / "out"
    assert main(["train", "--demos", str(tmp_path), "--out", str(out), *arguments]) == 2
    assert says in capsys.readouterr().err
    assert not out.exists()
