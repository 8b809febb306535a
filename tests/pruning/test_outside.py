"""CONTRIBUTING's five steps, followed by a package of its own: one file and one entry point."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def block(kind: str) -> str:
    """The first block of a kind in CONTRIBUTING, word for word."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    found = re.search(rf"```{kind}\n(.*?)```", text, re.DOTALL)
    lines = [line.removeprefix("   ") for line in found[1].splitlines()]
    return "\n".join(lines).strip() + "\n"


@pytest.fixture
def outside(tmp_path: Path) -> dict[str, str]:
    """A directory as pip would leave it, with the example of CONTRIBUTING word for word."""
    (tmp_path / "norm_pruning.py").write_text(block("python"), encoding="utf-8")
    table = re.fullmatch(r'\[project\.entry-points\."(.+)"\]\n(.+)', block("toml"), re.DOTALL)
    info = tmp_path / "norm_pruning-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: norm-pruning\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{table[1]}]\n" + table[2].replace('"', ""))
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}


def python(code: str, env: dict[str, str]) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_is_listed_and_chooses_and_can_be_wrapped(outside: dict[str, str]) -> None:
    code = """
import json, torch
from leanvla.commands.methods import Methods, run
from pruning.example import example_context
from pruning.registry import make_method
run(Methods(json=True))
ctx = example_context((2, 20, 8), 5)
kept = make_method("norm", keep=5).select(ctx).kept
want = ctx.features.norm(dim=-1).topk(5).indices.sort().values
assert kept.equal(want)
assert make_method("smooth+norm", keep=5).select(ctx).kept.equal(want)
assert make_method("quota:weights=1-1+norm", keep=5).select(ctx).kept.shape == (1, 10)
"""
    cards = json.loads(python(code, outside))["methods"]
    card = next(card for card in cards if card["name"] == "norm")
    assert card["summary"] == "Keep the embeddings of the largest norm."
    assert card["needs"] == ["features"]
    assert card["exportable"]


def test_it_runs_on_a_policy(outside: dict[str, str]) -> None:
    code = """
import numpy as np
from policy.registry import load_policy
from policy.types import Observation
policy = load_policy("mini", method="norm", keep=0.25)
spec = policy.observation_spec
images = tuple(np.random.default_rng(0).integers(0, 255, (96, 96, 3), np.uint8) for _ in spec.views)
state = np.zeros(len(spec.state_names), np.float32)
seen = Observation(images, state, "pick up the red cube", 0.0)
answer = policy.infer(seen, policy.initial_state())
assert answer.timing.kept_tokens == 72, answer.timing
assert policy.pruner.method.name == "norm"
policy.pruner.prove_active()
"""
    python(code, outside)


def test_a_broken_one_is_one_sentence(outside: dict[str, str]) -> None:
    """Without its imports the example does not load; nothing else may be said than that."""
    module = Path(outside["PYTHONPATH"].partition(os.pathsep)[0]) / "norm_pruning.py"
    module.write_text(block("python").replace("from dataclasses import dataclass\n", ""))
    command = [sys.executable, "-m", "leanvla", "methods"]
    done = subprocess.run(command, env=outside, capture_output=True, text=True, timeout=100)
    assert done.returncode == 2
    assert "'norm' at norm_pruning:Norm does not load (NameError: name 'dataclass'" in " ".join(
        done.stderr.split()
    )
    assert "Traceback" not in done.stderr
