from __future__ import annotations

import json
import re

import pytest
import yaml

from engines.profile.samples import FILE, read_samples, to_lines
from leanvla.cli import main
from leanvla.commands import profile_cells
from tests.policy.tiny import write_tiny

pytest.importorskip("torch")

GRID = ("--method", "random,vla_pruner", "--keep", "0.5,0.25")
FAST = ("--rounds", "8", "--warmup", "2", "--frame-size", "32", "--energy-seconds", "0")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny") / "oft"
    write_tiny(folder, "oft_l1")
    return folder


@pytest.fixture(scope="module")
def profiled(checkpoint, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "a"
    assert main(["profile", "--policy", str(checkpoint), *GRID, *FAST, "--out", str(out)]) == 0
    return out


def test_the_folder_is_whole(profiled):
    names = {path.name for path in profiled.iterdir()}
    assert names == {
        "config.yaml", "env.json", "metrics.json", "samples.jsonl", "trace.json", "report.html",
    }  # fmt: skip
    assert yaml.safe_load((profiled / "config.yaml").read_text())["rounds"] == 8
    trace = json.loads((profiled / "trace.json").read_text())
    assert {e["ph"] for e in trace["traceEvents"]} == {"M", "X"}


def test_metrics_hold_every_cell_beside_dense(profiled):
    metrics = json.loads((profiled / "metrics.json").read_text())
    assert metrics["schema"] == "leanvla.profile/1"
    cells = {cell["cell"]: cell for cell in metrics["cells"]}
    assert list(cells) == [
        "dense", "random @ 0.5", "random @ 0.25", "vla_pruner @ 0.5", "vla_pruner @ 0.25",
    ]  # fmt: skip
    dense, pruned = cells["dense"], cells["vla_pruner @ 0.25"]
    assert dense["speedup"]["p50"] == dense["speedup_ceiling"] == 1.0
    assert pruned["tokens"]["kept"] == 2 * 4
    assert pruned["tokens"]["visual"] == 2 * 16
    assert pruned["speedup_ceiling"] > 1.0
    assert pruned["speedup_ceiling_macs"] > 1.0
    assert pruned["ceiling_reached"] == pytest.approx(
        pruned["speedup"]["p50"] / pruned["speedup_ceiling"]
    )
    query = pruned["query_ms"]
    assert query["p50"] <= query["p95"] <= query["p99"] <= query["max"]
    parts = sum(ms["mean"] for ms in pruned["phase_ms"].values())
    assert parts + pruned["gap_ms"]["mean"] == pytest.approx(query["mean"])
    assert set(pruned["phase_ms"]) >= {"decode_image", "preprocess", "vision", "selection"}


def test_a_history_that_fills_is_warm_up_and_not_steady_state(checkpoint, tmp_path):
    args = ("--method", "vla_pruner:release", "--keep", "0.5", "--rounds", "6", "--warmup", "0")
    out = tmp_path / "o"
    policy = ("--policy", str(checkpoint), "--frame-size", "32")
    assert main(["profile", *policy, *args, "--out", str(out)]) == 0
    dense, pruned = json.loads((out / "metrics.json").read_text())["cells"]
    warm = [s for s in read_samples(out) if s.warmup]
    assert len(warm) == pruned["warmup"]["queries"] >= 1
    assert {sample.cell for sample in warm} == {"vla_pruner:release @ 0.5"}
    assert dense["queries"] == 6
    assert pruned["queries"] == 6 - len(warm) == pruned["speedup"]["rounds"]


def test_the_counted_macs_are_those_of_the_query_that_ran(profiled, checkpoint):
    from policy.openvla.config import load_config
    from policy.openvla.macs import query_macs
    from policy.openvla.tokenizer import PromptTokenizer

    metrics = json.loads((profiled / "metrics.json").read_text())
    config = load_config(checkpoint)
    prompt = PromptTokenizer(checkpoint, config)(metrics["instruction"]).shape[1]
    cell = metrics["cells"][2]
    macs = query_macs(config, cut=cell["cut_layer"], kept_per_view=4, prompt_tokens=prompt)
    assert cell["macs"] == macs.total
    assert sum(stage["macs"] for stage in cell["stages"]) == macs.total


def test_the_report_stands_alone(profiled):
    page = (profiled / "report.html").read_text()
    assert not re.search(r'(src|href)="(?!data:)', page)
    assert "<script" not in page
    assert page.count("<svg") == 2
    for words in ("Whole query", "Where the time goes", "vla_pruner @ 0.25", "cpu_governor"):
        assert words in page


def test_against_itself_nothing_is_slower_and_exit_code_is_zero(profiled, tmp_path, capsys):
    other = tmp_path / "other"
    other.mkdir()
    for path in profiled.iterdir():
        (other / path.name).write_bytes(path.read_bytes())
    args = ["profile", "--out", str(profiled), "--reuse", "--compare"]
    assert main([*args, str(other)]) == 0
    out = capsys.readouterr().out
    assert "no difference shown" in out
    assert "not like with like" not in out
    assert json.loads((profiled / "comparison.json").read_text())["slower_cells"] == 0
    (profiled / "comparison.json").unlink()


def test_a_slower_profile_is_a_failed_check_and_conditions_are_compared(profiled, tmp_path, capsys):
    from dataclasses import replace

    other = tmp_path / "other"
    other.mkdir()
    for path in profiled.iterdir():
        (other / path.name).write_bytes(path.read_bytes())
    faster = [replace(s, query_ms=s.query_ms / 3) for s in read_samples(profiled)]
    (other / FILE).write_text(to_lines(faster))
    metrics = json.loads((other / "metrics.json").read_text()) | {"threads": 2}
    (other / "metrics.json").write_text(json.dumps(metrics))
    args = ["profile", "--out", str(profiled), "--reuse", "--compare", str(other)]
    assert main(args) == 1
    out = capsys.readouterr().out
    assert "slower" in out
    assert "not like with like: threads: 1 here, 2 there" in out
    (profiled / "comparison.json").unlink()


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--keep", "2"), "give ratios in"),
        (("--keep", "0.5,,1"), "single commas"),
        (("--method", "fastw"), "did you mean 'fastv'"),
        (("--dtype", "int3"), "choose one of float32"),
        (("--device", "tpu"), "choose cpu or cuda"),
        (("--rounds", "0"), "at least one"),
        (("--layers", "4"), "shorten a --shape"),
        (("--shape", "openvla-70b"), "choose one of openvla-7b"),
        (("--reuse",), "metrics.json is missing"),
        (("--torch",), "name one with --engine"),
        (("--image", "a.png"), "a.png: no such image"),
    ],
)
def test_bad_input_is_one_sentence_and_touches_nothing(args, said, tmp_path, capsys, checkpoint):
    out = tmp_path / "out"
    policy = () if "--shape" in args else ("--policy", str(checkpoint))
    assert main(["profile", *policy, *FAST, "--out", str(out), *args]) == 2
    assert said in capsys.readouterr().err
    assert not out.exists()


def test_no_gpu_is_an_environment_that_cannot(tmp_path, capsys, monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["profile", "--device", "cuda", "--out", str(tmp_path / "o")]) == 3
    assert "sees no GPU" in capsys.readouterr().err


def test_a_shape_says_what_ran(tmp_path, capsys, monkeypatch):
    args = ("--shape", "mini", "--layers", "3", "--keep", "0.25", "--method", "fastv")
    fast = ("--rounds", "3", "--warmup", "1", "--frame-size", "96", "--json")
    assert main(["profile", *args, *fast, "--out", str(tmp_path / "o")]) == 0
    metrics = json.loads(capsys.readouterr().out)
    assert metrics["subject"] == (
        "shape mini with random weights, 3 of 6 decoder layers, tokenizer of mini"
    )
    assert metrics["architecture"]["decoder"].startswith("3 Llama layers")
    assert metrics["cells"][1]["tokens"]["kept"] == 2 * 36


def test_every_shape_can_be_named(capsys):
    assert main(["profile", "--shape", "list"]) == 0
    assert "openvla-oft-7b" in capsys.readouterr().out.split()


def test_dense_stands_in_for_a_rung_that_keeps_everything():
    from leanvla.commands.profile import Profile

    grid = profile_cells.grid(Profile(method="dense,fastv", keep="1.0,0.5"))
    assert [str(spec) for spec in grid] == ["dense", "fastv @ 0.5"]


@pytest.mark.slow
def test_an_engine_is_profiled_rung_by_rung_without_torch(checkpoint, tmp_path, capsys):
    pytest.importorskip("onnxscript")
    from policy.openvla.engine.export import export_policy

    engine, out = tmp_path / "engine", tmp_path / "o"
    export_policy(checkpoint, engine, methods=["fastv"], keeps=[0.5])
    args = ("--engine", str(engine), "--method", "fastv", "--keep", "0.5", *FAST)
    assert main(["profile", *args, "--out", str(out)]) == 0
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["subject"] == f"engine {engine}"
    assert metrics["dtype"] == "float32"
    dense, pruned = metrics["cells"]
    assert pruned["tokens"]["kept"] == 2 * 8
    assert pruned["speedup_ceiling"] is None or pruned["speedup_ceiling"] >= 1
    assert dense["gap_ms"]["p50"] < dense["query_ms"]["p50"] / 2
    capsys.readouterr()
    missing = ("--engine", str(engine), "--method", "fastv", "--keep", "0.25", *FAST)
    assert main(["profile", *missing, "--out", str(tmp_path / "p")]) in (1, 2)
    assert main(["profile", *args, "--shape", "mini", "--out", str(tmp_path / "p")]) == 2
    assert main(["profile", *args, "--dtype", "float16", "--out", str(tmp_path / "p")]) == 2
    assert not (tmp_path / "p").exists()


def test_an_engine_is_measured_beside_the_model_it_was_made_from(tmp_path, monkeypatch, capsys):
    """By the name of a policy that ships with graphs; below the aim, the report says why."""
    monkeypatch.setenv("LEANVLA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("leanvla.commands.profile_torch.WANTED", 1000.0)
    out = tmp_path / "o"
    rounds = ("--rounds", "3", "--warmup", "1", "--energy-seconds", "0")
    assert main(["profile", "--engine", "mini", "--torch", *rounds, "--out", str(out)]) == 0
    metrics = json.loads((out / "metrics.json").read_text())
    assert [cell["cell"] for cell in metrics["cells"]] == ["dense", "vla_pruner @ 0.25"]
    samples = {s.cell for s in read_samples(out)}
    assert samples == {
        "dense", "vla_pruner @ 0.25", "torch: dense", "torch: vla_pruner @ 0.25",
    }  # fmt: skip
    dense, pruned = metrics["beside_torch"]["cells"]
    for row in (dense, pruned):
        assert row["speedup"]["rounds"] == 3
        assert 0 < row["least_ms"] < row["torch_cpu_ms"]["p50"]
        at_most = row["torch_cpu_ms"]["p50"] / row["least_ms"]
        assert row["speedup_at_most"] == pytest.approx(at_most)
    assert pruned["least_ms"] < dense["least_ms"]
    for text in (capsys.readouterr().out, (out / "report.html").read_text()):
        assert "beside torch" in text.lower()
        assert "so no float32 runtime can be more than" in text
