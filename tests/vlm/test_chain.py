"""From nothing to a trained model and a report, at a size that takes seconds."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import load_file

from leanvla.cli import main
from leanvla.commands import scene_qa
from tests.vlm.small import SMALL
from vlm.tasks.registry import find_task
from vlm.training import mini
from vlm.training.recipe import Recipe, Stage
from vlm.types import ReadOptions

if TYPE_CHECKING:
    from pathlib import Path

TINY = Recipe((Stage(4, 2, 2, 1e-3), Stage(2, 2, 1, 1e-3)), warmup_steps=1)


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = scene_qa.draw
    monkeypatch.setattr(
        scene_qa, "draw", lambda config: draw(replace(config, scenes=2, clips=1, needles=1))
    )


@pytest.mark.gl
@pytest.mark.usefixtures("few")
def test_held_out_scenes_are_drawn_when_they_are_missing(
    small_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    words = ["vlm", "--model", str(small_model), "--data", str(data), "--out", str(tmp_path / "o")]
    words += ["--tasks", "scene_qa,needle", "--limit", "2", "--method", "divprune,quota+divprune"]
    words += ["--json"]
    assert main(words) == 0
    said = capsys.readouterr()
    assert "drawing held-out scenes" in said.err
    runs = {(r["task"], r["method"]): r for r in json.loads(said.out)["runs"]}
    assert runs["scene_qa", "divprune"]["retention"]["precision_omega"] is not None
    assert runs["needle", "divprune"]["tokens"]["visual"] == 4 * 256
    assert runs["needle", "quota+divprune"]["tokens"]["kept"] == 256
    assert list(runs["needle", "dense"]["figures"]) == ["needle_single_4s"]
    (length,) = runs["needle", "dense"]["lengths"]
    assert (length["seconds"], length["questions"]) == (4.0, 1)
    assert length["prompt_tokens"] > 1024
    assert runs["scene_qa", "dense"]["lengths"] == []
    questions = find_task("scene_clips").read(data, ReadOptions())
    assert questions[0].media.count == 4
    assert len(questions[0].media.load()) == 4


def test_training_writes_a_model_that_answers(
    squares: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.setattr("vlm.training.recipe.MINI", TINY)
    monkeypatch.setattr(mini, "TOWER", {**mini.TOWER, **SMALL["tower"]})
    monkeypatch.setattr(mini, "DECODER", {**mini.DECODER, **SMALL["decoder"]})
    out = tmp_path / "train"
    words = ["train-vlm", "--data", str(squares / "scene_qa/heldout"), "--out", str(out)]
    assert main([*words, "--workers", "1"]) == 0
    metrics = json.loads(capsys.readouterr().out)
    assert metrics["last_answer_loss"] > 0
    assert "pointing against frames" in (out / "report.html").read_text()
    assert "leanvla train-vlm" in (out / "mini-vlm" / "README.md").read_text()
    saved = load_file(out / "mini-vlm" / "model.safetensors")
    assert {value.dtype for value in saved.values()} == {torch.float16}
    answers = ["vlm", "--model", str(out / "mini-vlm"), "--data", str(squares), "--limit", "2"]
    answers += ["--method", "fastv", "--pictures", "0", "--out", str(tmp_path / "vlm")]
    assert main(answers) == 0
    assert "fastv @ 0.25" in capsys.readouterr().out


def test_what_cannot_be_trained_on_is_refused(squares: Path, tmp_path: Path, capsys) -> None:
    out = ("--out", str(tmp_path / "out"))
    assert main(["train-vlm", "--data", str(tmp_path), *out]) == 3
    assert "leanvla scene-qa" in capsys.readouterr().err
    assert main(["train-vlm", "--workers", "-1", *out]) == 2
    assert "--workers is -1" in capsys.readouterr().err
    assert (
        main(["train-vlm", "--data", str(squares / "scene_qa/heldout"), "--effort", "0", *out]) == 2
    )
    assert "effort is 0" in capsys.readouterr().err


@pytest.mark.gl
def test_the_model_that_ships_has_learnt_its_scene(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    draw = scene_qa.draw
    monkeypatch.setattr(
        scene_qa, "draw", lambda config: draw(replace(config, scenes=8, clips=0, needles=0))
    )
    monkeypatch.chdir(tmp_path)
    words = ["vlm", "--limit", "0", "--method", "divprune", "--pictures", "0", "--json"]
    assert main([*words, "--out", "out"]) == 0
    runs = {run["method"]: run for run in json.loads(capsys.readouterr().out)["runs"]}
    kinds = runs["dense"]["figures"]
    assert kinds["existence"] >= 0.9, kinds
    assert runs["dense"]["accuracy"] > 0.75, kinds
    assert runs["divprune"]["tokens"]["kept"] == 64
