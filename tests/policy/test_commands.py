"""Policies by name; `leanvla infer` and `leanvla inspect` end to end on tiny checkpoints."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from leanvla.cli import main
from policy.openvla.errors import PolicyNameError
from policy.registry import load_policy, packaged_policies, resolve_policy
from pruning.types import BudgetError
from tests.policy.tiny import CONFIGS, write_tiny


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
    root = tmp_path_factory.mktemp("zoo")
    for kind in CONFIGS:
        write_tiny(root / kind, kind)
    rng = np.random.default_rng(0)
    for name in ("a", "b", "c"):
        Image.fromarray(rng.integers(0, 256, (40, 48, 3), dtype=np.uint8)).save(
            root / f"{name}.png"
        )
    Image.fromarray(np.zeros((40, 48, 3), np.uint8)).save(root / "black.png")
    (root / "broken.png").write_bytes(b"\x89PNG not really")
    return root


def infer(zoo, kind, *extra, views=None, image="a.png", text="put the red cube in the bin"):
    config = CONFIGS[kind]
    args = ["infer", "--policy", str(zoo / kind), "--image", str(zoo / image), "--text", text]
    wrist = ["b.png", "c.png"][: (views or len(config.views)) - 1]
    if wrist:
        args += ["--wrist", *(str(zoo / name) for name in wrist)]
    if config.proprio_dim and "--state" not in extra:
        args += ["--state", *["0.1"] * config.proprio_dim]
    if len(config.norm_stats) > 1 and "--unnorm-key" not in extra:
        args += ["--unnorm-key", "a"]
    return main([*args, *extra])


@pytest.mark.parametrize("kind", CONFIGS)
def test_infer_json(zoo, kind, capsys):
    config = CONFIGS[kind]
    assert infer(zoo, kind, "--json", "--method", "vla_pruner", "--keep", "0.25") == 0
    out = json.loads(capsys.readouterr().out)
    assert np.shape(out["actions"]) == (config.chunk, config.dof)
    assert np.shape(out["normalized_actions"]) == (config.chunk, config.dof)
    assert [len(kept) for kept in out["kept"]] == [4] * len(config.views)
    assert out["action_names"] == list(config.action_names)
    if config.head == "l1":
        assert out["action_tokens"] is None
    else:
        assert np.shape(out["action_tokens"]) == (config.chunk, config.dof)


def test_infer_is_reproducible_and_pruning_at_one_is_dense(zoo, capsys):
    answers = []
    for extra in ([], [], *(["--method", "vla_pruner", "--keep", k] for k in ("1.0", "1"))):
        assert infer(zoo, "oft_l1", "--json", *extra) == 0
        answers.append(json.loads(capsys.readouterr().out)["actions"])
    assert all(answer == answers[0] for answer in answers)


def test_infer_prints_units(zoo, capsys):
    assert infer(zoo, "single_ar") == 0
    out = capsys.readouterr().out
    assert "a0 [m]" in out
    assert "16 of 16 (primary)" in out


@pytest.mark.parametrize(
    ("kind", "options", "sentence"),
    [
        ("oft_discrete_3", {"views": 2}, "2 camera frame(s) given, the policy reads 3"),
        ("single_ar", {"image": "black.png"}, "every pixel is 0"),
        ("single_ar", {"image": "broken.png"}, "not a readable PNG or JPEG"),
        ("single_ar", {"image": "absent.png"}, "no such image file"),
        ("single_ar", {"text": "  "}, "instruction is empty"),
        ("single_ar", {"text": "x" * 513}, "instruction has 513 characters"),
        ("single_ar", {"text": "\U0001f916" * 512}, "the decoder reads 2048; say it in fewer"),
        ("single_ar", {"text": "put it \udcff down"}, "instruction is not UTF-8 text"),
        ("oft_l1", {"extra": ["--state", "1.0"]}, "state has 1 value(s), the policy reads 5"),
        ("oft_l1", {"extra": ["--state", *["nan"] * 5]}, "state is not finite"),
        ("fused_ar", {"extra": ["--unnorm-key", "c"]}, "unknown unnorm_key 'c'"),
        ("single_ar", {"extra": ["--method", "fastw"]}, "fastv"),
        ("single_ar", {"extra": ["--method", "fastv", "--keep", "1.5"]}, "keep is 1.5"),
        ("single_ar", {"extra": ["--method", "fastv", "--keep", "17"]}, "a view has only 16"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(zoo, capsys, kind, options, sentence):
    options = dict(options)
    assert infer(zoo, kind, *options.pop("extra", []), **options) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert sentence in captured.err
    assert captured.err.count("\n") == 1


def test_bytes_that_are_no_utf8_are_refused_on_a_real_command_line(zoo):
    command = [sys.executable, "-m", "leanvla", "infer", "--policy", str(zoo / "single_ar")]
    command += ["--image", str(zoo / "a.png"), "--text", b"pick \xff\xfe up"]
    done = subprocess.run(command, capture_output=True, check=False)
    assert done.returncode == 2
    assert done.stdout == b""
    assert done.stderr.startswith(b"leanvla: error: instruction is not UTF-8 text")
    assert done.stderr.count(b"\n") == 1


def test_a_count_above_the_tokens_is_refused_when_the_policy_is_made(zoo):
    with pytest.raises(BudgetError, match="keep is 17 tokens, a view has only 16"):
        load_policy(zoo / "single_ar", method="fastv", keep=17)
    assert load_policy(zoo / "single_ar", method="fastv", keep=16).pruner.method.keep == 16


def test_inspect(zoo, capsys):
    assert main(["inspect", str(zoo / "oft_l1"), "--json"]) == 0
    card = json.loads(capsys.readouterr().out)
    assert card["visual_tokens_per_view"] == 16
    assert card["norm_stats"] == ["tiny_dataset"]
    assert set(card["parameters"]) >= {"vision_backbone", "proprio_projector", "action_head"}
    gains = [row["speedup_at_most"] for row in card["macs"]]
    assert gains[0] == 1.0
    assert gains == sorted(gains)
    assert gains[-1] < card["speedup_limit"]
    assert main(["inspect", str(zoo / "oft_l1")]) == 0
    assert "cut" in capsys.readouterr().out


def test_inspect_refuses_an_impossible_cut(zoo, capsys):
    assert main(["inspect", str(zoo / "single_ar"), "--cut", "4"]) == 2
    assert "cut at 1 ... 3" in capsys.readouterr().err


def test_inspect_needs_no_torch(zoo):
    code = (
        "import sys; from leanvla.cli import main; "
        f"main(['inspect', {str(zoo / 'single_ar')!r}]); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_unknown_policy_lists_the_known_ones_and_the_nearest(tmp_path, monkeypatch):
    write_tiny(tmp_path / "mini", "single_ar")
    monkeypatch.setattr("policy.registry.ZOO", tmp_path)
    assert packaged_policies() == ["mini"]
    assert resolve_policy("mini") == tmp_path / "mini"
    with pytest.raises(PolicyNameError, match="one of mini; did you mean 'mini'"):
        resolve_policy("minni")


def test_path_without_config(tmp_path):
    with pytest.raises(PolicyNameError, match=r"has no config\.json"):
        resolve_policy(tmp_path)
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(PolicyNameError, match="is a file: give the checkpoint folder"):
        resolve_policy(tmp_path / "model.safetensors")


def test_load_policy_refuses_odd_settings(zoo):
    with pytest.raises(ValueError, match="threads is 0"):
        load_policy(zoo / "single_ar", threads=0)
    with pytest.raises(ValueError, match="unknown dtype 'int8'"):
        load_policy(zoo / "single_ar", dtype="int8")
