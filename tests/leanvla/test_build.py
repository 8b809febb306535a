from __future__ import annotations

import json

import pytest

from leanvla.cli import main

pytest.importorskip(
    "tensorrt_rtx_bindings", reason="TensorRT-RTX is absent: pip install 'leanvla[trt-rtx]'"
)
onnx = pytest.importorskip("onnx")


@pytest.fixture
def graph(tmp_path):
    """A top-k, and a gather of what it chose."""
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    nodes = [
        helper.make_node("TopK", ["scores", "k"], ["values", "ranks"]),
        helper.make_node("Gather", ["x", "ranks"], ["y"], axis=0),
    ]
    body = helper.make_graph(
        nodes,
        "pruned",
        [
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, [8]),
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [8, 4]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 4])],
        [numpy_helper.from_array(np.array([2]), "k")],
    )
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", 20)])
    model.ir_version = 10
    folder = tmp_path / "export"
    folder.mkdir()
    onnx.save(model, folder / "prefill.onnx")
    return folder


def test_a_folder_of_graphs_becomes_plans_and_a_report(graph, tmp_path, capsys):
    out = tmp_path / "plans"
    args = ["build", str(graph), "--out", str(out), "--library", "tensorrt_rtx"]
    assert main([*args, "--capability", "SM86,SM89"]) == 0
    shown = capsys.readouterr()
    assert "not executed" in shown.out
    assert "built" in shown.err
    report = json.loads((out / "plans.json").read_text())
    plan = report["plans"]["prefill.plan"]
    assert report["executed"] is False
    assert plan["prunes"] is True
    assert plan["capabilities"] == ["SM86", "SM89"]
    assert plan["plan_bytes"] == (out / "prefill.plan").stat().st_size
    assert [tensor["name"] for tensor in plan["contents"]["inputs"]] == ["scores", "x"]


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (("--rungs", "k"), 2, "give an input and its values"),
        (("--rungs", "k=4"), 2, "every input is static"),
        (("--capability", "SM87"), 2, "and not for SM87"),
        (("--library", "openvino"), 2, "choose tensorrt"),
        (("--library", "tensorrt"), 3, "tensorrt is not installed: JetPack brings it"),
    ],
)
def test_what_cannot_be_built_is_one_sentence(graph, tmp_path, capsys, args, code, said):
    from engines.tensorrt.library import installed

    if "tensorrt" in args and installed("tensorrt"):
        pytest.skip("TensorRT itself is here")
    library = () if "--library" in args else ("--library", "tensorrt_rtx")
    out = tmp_path / "plans"
    assert main(["build", str(graph), "--out", str(out), *library, *args]) == code
    assert said in capsys.readouterr().err
    assert not (out / "plans.json").exists()


def test_nothing_to_build_is_usage(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert main(["build", str(tmp_path / "empty")]) == 2
    assert "holds no ONNX file" in capsys.readouterr().err
    assert main(["build", str(tmp_path / "a.onnx")]) == 2
    assert "no such ONNX file" in capsys.readouterr().err
