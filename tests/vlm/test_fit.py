"""Methods that do not fit are named before anything is written; what has no history says so."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from leanvla.cli import main
from pruning.registry import make_method
from vlm.fit import without_history
from vlm.model import load_vlm
from vlm.pruned import ask
from vlm.tasks.registry import find_task
from vlm.types import ReadOptions

if TYPE_CHECKING:
    from pathlib import Path


def command(model: Path, data: Path, out: Path, methods: str, *more: str) -> list[str]:
    return ["vlm", "--model", str(model), "--data", str(data), "--out", str(out),
            "--method", methods, "--limit", "3", "--pictures", "0", *more]  # fmt: skip


def test_all_misfits_are_named_and_nothing_is_written(
    small_model, squares, tmp_path, capsys
) -> None:
    methods = "vla_cache,random,oracle,vla_pruner:release,kv_select"
    line = command(small_model, squares, tmp_path / "out", methods, "--keep", "0.5,0.25")
    assert main(line) == 2
    *sentences, last = capsys.readouterr().err.splitlines()[-6:]
    starts = ("vla_cache ", "oracle ", "vla_pruner:release: ", "kv_select: ", "kv_select: ")
    assert all(s.startswith(start) for s, start in zip(sentences, starts, strict=True))
    assert "'pixels'" in sentences[0]
    assert "vla_pruner:release:warmup=semantic" in sentences[2]
    assert "not all methods can run" in last
    assert not (tmp_path / "out").exists()
    assert main(command(small_model, squares, tmp_path / "out", "random")) == 0


def test_a_linear_projector_is_found_out_in_the_trial(squares, tmp_path, capsys) -> None:
    import torch

    from tests.vlm.small import SMALL
    from vlm.training.mini import make_model, mini_config, save_mini

    config = mini_config(**SMALL)
    config.projector_hidden_act = "linear"
    torch.manual_seed(0)
    save_mini(tmp_path / "m", make_model(config).state_dict(), config, "# linear\n")
    assert main(command(tmp_path / "m", squares, tmp_path / "out", "zoo_prune")) == 2
    assert "zoo_prune: " in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("fastv", None),
        ("quota+divprune", None),
        ("vla_pruner", "without a history: equals prefill_mean"),
        ("vla_pruner:window=5:cut=2", "without a history: equals prefill_mean:cut=2"),
        ("quota+vla_pruner:semantic_rows=last", "without a history: equals quota+fastv"),
        ("smooth:weight=0.8+fastv", "without a history: equals fastv"),
        ("reuse+divprune", "without a history: equals divprune"),
        ("vla_pruner:semantic_rows=text", "without a history"),
        ("pact", "without a history"),
    ],
)
def test_methods_with_memory_say_that_they_have_none(spec: str, says: str | None) -> None:
    assert without_history(spec, make_method(spec, keep=0.25)) == says
    assert without_history(spec, make_method(spec, keep=1.0)) is None


def test_what_is_said_is_so(small_model: Path, squares: Path) -> None:
    vlm = load_vlm(small_model)
    question = find_task("scene_clips").read(squares, ReadOptions())[0]
    inputs = vlm.prepare(question.prompt, question.media.load())

    def kept(spec: str) -> list:
        trace = ask(vlm, make_method(spec, keep=0.25), inputs, 2, seed=7)[1]
        return [view.tolist() for view in trace.kept]

    for spec in ("vla_pruner:window=5", "vla_pruner:semantic_rows=last:cut=1",
                 "quota+vla_pruner", "smooth+fastv", "reuse+divprune"):  # fmt: skip
        other = without_history(spec, make_method(spec, keep=0.25)).partition("equals ")[2]
        assert kept(spec) == kept(other), spec


def test_the_table_and_the_report_say_it(small_model, squares, tmp_path, capsys) -> None:
    line = command(small_model, squares, tmp_path / "out", "random,vla_pruner")
    assert main(line) == 0
    note = "without a history: equals prefill_mean"
    rows = capsys.readouterr().out.splitlines()
    assert [note in row for row in rows] == ["vla_pruner" in row for row in rows]
    assert note in (tmp_path / "out" / "report.html").read_text()
    runs = json.loads((tmp_path / "out" / "metrics.json").read_text())["runs"]
    assert [run["note"] for run in runs] == [None, None, note]
