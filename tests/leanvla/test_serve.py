"""`leanvla serve`, and rollouts whose policy is served by another process."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from leanvla.cli import main
from leanvla.commands.serve import Serve
from leanvla.commands.serve import _cells as served_cells
from tests.policy.served import lying, plain_answer, serving

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("websockets")
FAKE = "tests.sim.fakes:FakePolicy"


def rollout(policy: str, out: Path, *more: str) -> list[str]:
    suite = ("--suite", "tests.sim.fakes:FakeSuite")
    few = ("--episodes", "2", "--workers", "1", "--video", "0", "--method", "vla_pruner")
    return ["rollout", *suite, "--policy", policy, *few, "--out", str(out), *more]


def episodes(out: Path) -> list[dict[str, object]]:
    lines = (out / "episodes.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    return sorted(records, key=lambda record: (record["method"], record["seed"]))


def test_a_served_policy_rolls_out_like_a_local_one(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    assert main(rollout(FAKE, here)) == 0
    with serving("--method", "dense,vla_pruner", policy=FAKE) as (address, _):
        assert main(rollout(address, there)) == 0
    same = ("seed", "method", "outcome", "steps", "kept", "visual_tokens", "warmup")
    for ours, theirs in zip(episodes(here), episodes(there), strict=True):
        assert [ours.get(name) for name in same] == [theirs.get(name) for name in same]
        phases = theirs["phase_ms"]
        assert {"vision", "prefill_above", "trip"} <= set(phases)
        assert phases["vision"] == ours["phase_ms"]["vision"]
    run = json.loads((there / "metrics.json").read_text())["runs"][1]
    assert run["phase_latency_ms"]["trip"] > 0


def test_what_a_server_cannot_do_is_refused_before_anything_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(rollout("ws://127.0.0.1:9", out)) == 3
    assert "nobody serves a policy at ws://127.0.0.1:9/dense/1" in capsys.readouterr().err
    assert main(rollout("ws://127.0.0.1:9", out, "--option", "window=5")) == 2
    assert "give --option and --unnorm-key to `leanvla serve`" in capsys.readouterr().err
    assert main(rollout("ws://a:b", out)) == 2
    assert "no address" in capsys.readouterr().err
    with lying(plain_answer) as address:
        assert main(["rollout", "--policy", address, "--method", "dense", "--out", str(out)]) == 2
    says = capsys.readouterr().err
    assert "the policy says none, suite tabletop takes -1 open, +1 close" in says
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--policy", "ws://a:1"), "give a policy that runs here"),
        (("--host", "0.0.0.0"), "can be reached by others: set LEANVLA_TOKEN"),
        (("--port", "70000"), "--port is 70000"),
        (("--threads", "0"), "--threads is 0: give 1 or more"),
        (("--query-timeout", "0"), "--query-timeout is 0"),
        (("--token-file", "/absent"), "/absent: No such file"),
        (("--method", "vla_prunr"), "did you mean 'vla_pruner'"),
    ],
)
def test_bad_input_is_refused(
    arguments: tuple[str, str],
    says: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("LEANVLA_TOKEN", raising=False)
    assert main(["serve", *arguments]) == 2
    assert says in capsys.readouterr().err


def test_what_is_served_runs_where_a_rollout_would_run_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LEANVLA_CACHE", str(tmp_path))

    def runtimes(**options: str) -> list[str]:
        cells = served_cells(Serve(method="dense,vla_pruner,random", **options))
        return [str(getattr(cell.policy, "runs_on", "")) for cell in cells]

    engine, torch = "onnxruntime cpu fp32", "torch cpu float32"
    assert runtimes() == [engine, engine, torch]
    assert "random @ 0.25 runs on torch: random cannot become a graph" in capsys.readouterr().err
    assert runtimes(engine="torch") == [torch] * 3
