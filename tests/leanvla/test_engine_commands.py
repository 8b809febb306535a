"""`leanvla export`, `verify`, and the other verbs on an engine of the packaged policy."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from engines.manifest import MANIFEST, read_manifest, sha256
from engines.weights import WEIGHTS
from leanvla.cli import main
from leanvla.commands.export import Export, rebuild_command
from leanvla.commands.rollout import Rollout
from leanvla.commands.rollout_plan import make_plan
from policy.openvla.config import load_config
from policy.registry import resolve_policy


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    """`mini` with a quarter of its tokens; not compared yet."""
    folder = tmp_path_factory.mktemp("engine") / "mini"
    command = ["export", "--policy", "mini", "--keep", "0.25", "--out", str(folder)]
    assert main([*command, "--observations", "0"]) == 0
    return folder


def ledger(capsys, command: list[str]) -> tuple[int, dict]:
    capsys.readouterr()
    code = main([*command, "--json"])
    return code, json.loads(capsys.readouterr().out)


@pytest.mark.gl
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_engine_and_model_agree_over_an_episode(engine, capsys):
    """Exported and verified: the same tokens and actions in every query of a `tabletop` episode."""
    command = ["verify", str(engine), "--suite", "tabletop", "--observations", "400"]
    code, found = ledger(capsys, command)
    assert code == 0
    assert found["misses"] == []
    for rung in found["ledger"]:
        assert rung["observations"] > 10
        assert rung["kept_equal"] == rung["observations"]
        assert rung["action_max_abs"] <= 1e-3
    assert read_manifest(engine).parity[1].method == "vla_pruner"


def test_another_network_in_the_engine_is_a_miss(engine, tmp_path, capsys):
    """Weights that were changed with their hash: files agree, the network does not; exit code 1."""
    folder = shutil.copytree(engine, tmp_path / "changed")
    weights = np.fromfile(folder / WEIGHTS, np.float32)
    weights[: len(weights) // 2] *= 1.2
    weights.tofile(folder / WEIGHTS)
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["files"][WEIGHTS]["sha256"] = sha256(folder / WEIGHTS)
    (folder / MANIFEST).write_text(json.dumps(manifest))
    code, found = ledger(capsys, ["verify", str(folder), "--observations", "2"])
    assert code == 1
    assert any("cosine" in miss for miss in found["misses"])


def test_a_graph_that_chooses_other_tokens_is_a_miss_and_no_tie(engine, tmp_path, capsys):
    """The least worth instead of the most: files agree, the choice does not; exit code 1."""
    import onnx

    folder = shutil.copytree(engine, tmp_path / "changed")
    manifest = json.loads((folder / MANIFEST).read_text())
    for path in folder.glob("select_vla_pruner*.onnx"):
        graph = onnx.load(path, load_external_data=False)
        for node in (node for node in graph.graph.node if node.op_type == "TopK"):
            (largest,) = (each for each in node.attribute if each.name == "largest")
            largest.i = 1 - largest.i
        onnx.save(graph, path)
        size = path.stat().st_size
        manifest["files"][path.name] |= {"bytes": size, "sha256": sha256(path)}
    (folder / MANIFEST).write_text(json.dumps(manifest))
    command = ["verify", str(folder), "--method", "vla_pruner", "--observations", "2"]
    code, found = ledger(capsys, command)
    assert code == 1
    (rung,) = (each for each in found["ledger"] if each["method"] == "vla_pruner")
    assert (rung["kept_equal"], rung["kept_tied"]) == (0, 0)
    assert len(found["misses"]) == 1
    assert main(command) == 1
    assert "miss: vla_pruner at 0.25" in capsys.readouterr().out


def test_infer_says_the_same_on_engine_and_checkpoint(engine, tmp_path, capsys):
    from PIL import Image

    rng = np.random.default_rng(0)
    frames = []
    for name in ("front", "wrist"):
        frames.append(str(tmp_path / f"{name}.png"))
        Image.fromarray(rng.integers(0, 255, (96, 96, 3), np.uint8)).save(frames[-1])
    state = ["0", "0", "0.9", "2.1", "2.1", "0.1", "0.02", "-0.02"]
    answers = []
    for policy in (str(engine), "mini"):
        capsys.readouterr()
        command = ["infer", "--policy", policy, "--image", frames[0], "--text", "pick up the cube"]
        command += ["--method", "vla_pruner", "--keep", "0.25", "--wrist", frames[1], "--json"]
        assert main([*command, "--state", *state]) == 0
        answers.append(json.loads(capsys.readouterr().out))
    for field in ("actions", "action_tokens", "kept", "action_names", "rate_hz", "unnorm_key"):
        assert answers[0][field] == answers[1][field]


def test_a_rollout_refuses_what_is_no_rung_before_it_starts(engine, tmp_path, capsys):
    out = tmp_path / "out"
    command = ["rollout", "--policy", str(engine), "--keep", "0.3", "--out", str(out)]
    assert main(command) == 2
    assert "it has dense; vla_pruner at 0.25" in capsys.readouterr().err
    assert not out.exists()
    assert len(make_plan(Rollout(policy=str(engine), keep="0.25", episodes=1)).cells) == 2


def test_inspect_reads_an_engine(engine, capsys):
    assert main(["inspect", str(engine), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["visual_tokens_per_view"] == 144


def test_the_rebuild_command_repeats_what_was_asked_for(engine):
    config = Export(method="fastv", keep="0.5", precision="int8", prompt_tokens=40)
    assert rebuild_command(config) == (
        "leanvla export --policy mini --method fastv --keep 0.5 --out runs/engine "
        "--precision int8 --prompt-tokens 40"
    )
    manifest = read_manifest(engine)
    assert manifest.rebuild.startswith("leanvla export --policy mini --method vla_pruner")
    assert manifest.policy == "mini"
    assert str(Path.cwd()) not in (engine / MANIFEST).read_text()


def test_a_shape_gets_a_random_checkpoint_beside_its_engine(tmp_path, monkeypatch):
    from policy.openvla.checkpoint import load_tensors
    from policy.openvla.shapes import shape

    asked = []
    monkeypatch.setattr(
        "policy.openvla.engine.export.export_policy",
        lambda checkpoint, out, **options: asked.append((checkpoint, options)),
    )
    out = tmp_path / "engine"
    command = ["export", "--shape", "mini", "--layers", "3", "--out", str(out)]
    for _ in range(2):
        assert main([*command, "--observations", "0"]) == 0
    (checkpoint, options), (again, _) = asked
    assert checkpoint == again == tmp_path / "engine-checkpoint"
    assert load_config(checkpoint) == shape("mini", 3)
    assert len({name for name in load_tensors(checkpoint) if "layers.2." in name}) > 5
    assert "--shape mini --layers 3" in options["rebuild"]
    assert options["policy"] == str(checkpoint)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--layers", "3"], "shorten a --shape"),
        (["--shape", "maxi"], "unknown shape 'maxi'"),
        (["--precision", "int8-static"], "needs ranges measured on recorded observations"),
        (["--precision", "fp8", "--calibrate", "kitchen"], "give a suite (libero_"),
        (["--calibrate", "tabletop"], "precision fp32 is not calibrated"),
        (["--method", "random"], "random cannot become a graph: choose from"),
        (["--precision", "fp4"], "unknown precision 'fp4': choose from fp32, fp16, bf16, int8,"),
        (["--keep", "0"], "keep is 0.0"),
        (["--prompt-tokens", "4000"], "the decoder reads 2048"),
        (["--observations", "-1"], "--observations is -1"),
        (["--policy", "maxi"], "unknown policy 'maxi'"),
    ],
)
def test_an_impossible_export_is_one_sentence(tmp_path, capsys, arguments, sentence):
    assert main(["export", "--out", str(tmp_path / "engine"), *arguments]) == 2
    assert sentence in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_no_engine_cannot_be_verified(capsys):
    assert main(["verify", str(resolve_policy("mini"))]) == 2
    assert "has no engine.json" in capsys.readouterr().err
