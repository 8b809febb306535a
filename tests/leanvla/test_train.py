"""`leanvla train` from demonstrations to a policy that loads, at a thousandth of the effort."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

from leanvla.cli import main
from policy.registry import load_policy
from policy.types import Observation

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


def test_demonstrations_must_exist(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--demos", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    assert "leanvla demos" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--suite", "tabletp"), "did you mean 'tabletop'"),
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
