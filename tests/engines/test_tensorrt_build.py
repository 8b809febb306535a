"""Real plans, built by TensorRT-RTX without a GPU. None of them is executed here."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from engines.errors import EngineError, EngineUnavailableError
from engines.tensorrt.builder import build_plan, default_capabilities
from engines.tensorrt.library import TENSORRT, TENSORRT_RTX, Library, find_library, has_driver
from engines.tensorrt.options import (
    BuildOptions,
    Profile,
    check_options,
    ladder_profiles,
)
from engines.tensorrt.session import open_plan

pytest.importorskip(
    "tensorrt_rtx_bindings", reason="TensorRT-RTX is absent: pip install 'leanvla[trt-rtx]'"
)
pytest.importorskip("onnxscript", reason="graphs are exported here: pip install 'leanvla[export]'")

ONE = {"library": TENSORRT_RTX, "capabilities": ("SM89",)}


@pytest.fixture(scope="module")
def graphs(tmp_path_factory):
    """Graphs by precision and opset, each exported once."""
    from tests.engines.graphs import export, export_adjustable

    folder, made = tmp_path_factory.mktemp("onnx"), {}

    def graph(dtype: str, opset: int = 20, keep: float = 0.25):
        key = (dtype, opset, keep)
        if key not in made:
            path = folder / f"{dtype}-{opset}-{keep}.onnx"
            made[key] = (
                export_adjustable(path) if dtype == "k" else export(path, dtype, keep, opset)
            )
        return made[key]

    return graph


@pytest.mark.parametrize(
    ("dtype", "opset", "keep"),
    [
        ("float16", 20, 0.25),
        ("float16", 20, 0.5),
        ("float16", 23, 0.25),
        ("bfloat16", 20, 0.25),
        ("float32", 20, 0.25),
    ],
)
def test_pruning_is_inside_the_plan_of_every_rung(graphs, tmp_path, dtype, opset, keep):
    plan = tmp_path / "prefill.plan"
    report = build_plan(graphs(dtype, opset, keep), plan, BuildOptions(**ONE))
    contents, kept = report.contents, round(16 * keep)
    (x,) = contents.inputs
    assert (x.name, x.shape, x.dtype) == ("x", (1, 55, 64), dtype)
    hidden, index = contents.outputs
    assert (hidden.name, hidden.shape) == ("hidden", (1, 55 - 2 * (16 - kept), 64))
    assert hidden.dtype == dtype
    assert (index.shape, index.dtype) == ((2, kept), "int64")
    assert contents.prunes
    assert contents.layers["TOPK"] >= 1
    assert contents.types[dtype] > 100  # strongly typed: the graph's precision is the plan's
    assert plan.stat().st_size == report.plan_bytes > 1_000_000
    assert hashlib.sha256(plan.read_bytes()).hexdigest() == report.plan_sha256
    assert report.capabilities == ("SM89",)


def test_attention_is_fused_in_half_precision_at_opset_23(graphs, tmp_path):
    report = build_plan(graphs("float16", 23), tmp_path / "p.plan", BuildOptions(**ONE))
    assert report.contents.layers["ATTENTION_INPUT"] == 4
    assert report.decomposed_attention == 0


def test_float32_attention_has_no_kernel_and_is_taken_apart(graphs, tmp_path):
    """Left alone it cannot be built by this version; the builder knows, and says what it did."""
    onnx = graphs("float32", 23)
    options = BuildOptions(**ONE, decompose_attention=False)
    with pytest.raises(EngineError, match="not supported by a dedicated kernel"):
        build_plan(onnx, tmp_path / "p.plan", options)
    assert not (tmp_path / "p.plan").exists()
    report = build_plan(onnx, tmp_path / "p.plan", BuildOptions(**ONE))
    assert report.decomposed_attention == 4


def test_a_run_time_budget_gets_one_profile_per_rung(graphs, tmp_path):
    options = BuildOptions(**ONE, profiles=ladder_profiles("k", [16, 8, 4]))
    report = build_plan(graphs("k"), tmp_path / "k.plan", options)
    x, k = report.contents.inputs
    assert x.static
    assert k.decides_shapes
    assert report.contents.outputs[1].shape == (2, -1)
    assert report.contents.prunes
    assert report.profiles == ("k=16", "k=8", "k=4")


def test_a_run_time_budget_without_a_range_is_refused(graphs, tmp_path):
    with pytest.raises(EngineError, match=r"k \(int64 \[\]\) may change, so a profile must say"):
        build_plan(graphs("k"), tmp_path / "p.plan", BuildOptions(**ONE))


@pytest.mark.parametrize(
    ("profile", "said"),
    [
        (Profile("a", values={"q": ((1,), (2,), (3,))}), "input 'q', the graph has x, k"),
        (Profile("a", values={"k": ((4,), (2,), (8,))}), "least, usual, most in this order"),
        (Profile("a", values={"k": ((1, 1), (2, 2), (3, 3))}), r"1 number\(s\) per bound"),
        (Profile("a", shapes={"x": ((1, 55, 64),) * 3}), "says nothing of k"),
        (Profile("a", values={"x": ((1,), (1,), (1,))}), "decides no shape"),
    ],
)
def test_profiles_that_do_not_fit_are_refused(graphs, tmp_path, profile, said):
    options = BuildOptions(**ONE, profiles=(profile,))
    with pytest.raises(EngineError, match=said):
        build_plan(graphs("k"), tmp_path / "p.plan", options)


def test_a_static_graph_takes_no_profile(graphs, tmp_path):
    options = BuildOptions(**ONE, profiles=ladder_profiles("k", [4]))
    with pytest.raises(EngineError, match="every input is static"):
        build_plan(graphs("float16"), tmp_path / "p.plan", options)


def test_a_dense_graph_is_not_called_pruned(tmp_path):
    """A top-k that only becomes an output, beside a gather by constants, is no pruning."""
    from onnx import TensorProto, helper, numpy_helper, save

    nodes = [
        helper.make_node("TopK", ["x", "k"], ["values", "ranks"]),
        helper.make_node("Gather", ["x", "order"], ["y"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "dense",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 8])],
        [
            helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3]),
            helper.make_tensor_value_info("ranks", TensorProto.INT64, [1, 2]),
        ],
        [
            numpy_helper.from_array(np.array([2]), "k"),
            numpy_helper.from_array(np.array([0, 2, 5]), "order"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
    model.ir_version = 10
    save(model, tmp_path / "dense.onnx")
    report = build_plan(tmp_path / "dense.onnx", tmp_path / "p.plan", BuildOptions(**ONE))
    assert report.contents.layers["TOPK"] == 1
    assert report.contents.layers["GATHER"] == 1
    assert not report.contents.prunes


def test_dynamic_int8_of_onnxruntime_is_refused_with_the_way_out(graphs, tmp_path):
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantised = tmp_path / "int8.onnx"
    quantize_dynamic(graphs("float32"), quantised, weight_type=QuantType.QInt8)
    with pytest.raises(EngineError, match=r"cannot read DynamicQuantizeLinear.*QuantizeLinear and"):
        build_plan(quantised, tmp_path / "p.plan", BuildOptions(**ONE))


def test_turing_has_no_float32_product_and_is_left_out_by_default(graphs, tmp_path):
    options = BuildOptions(TENSORRT_RTX, capabilities=("SM75",))
    with pytest.raises(EngineError, match="Turing"):
        build_plan(graphs("float16"), tmp_path / "p.plan", options)
    library = find_library(TENSORRT_RTX)
    assert "SM75" in library.capabilities
    assert default_capabilities(library) == tuple(
        name for name in library.capabilities if name != "SM75"
    )
    report = build_plan(graphs("float16"), tmp_path / "p.plan", BuildOptions(TENSORRT_RTX))
    assert report.capabilities == default_capabilities(library)


def test_weights_may_stream(graphs, tmp_path):
    options = BuildOptions(**ONE, weight_streaming=True)
    assert build_plan(graphs("float16"), tmp_path / "p.plan", options).plan_bytes


@pytest.mark.skipif(has_driver(), reason="a CUDA driver is here")
@pytest.mark.parametrize("flag", ["refit", "strip"])
def test_flags_that_need_a_driver_say_so(graphs, tmp_path, flag):
    options = BuildOptions(**ONE, **{flag: True})
    with pytest.raises(EngineUnavailableError, match=f"{flag} needs a CUDA driver"):
        build_plan(graphs("float16"), tmp_path / "p.plan", options)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"capabilities": ("SM87",)}, r"builds for SM75.*not for SM87.*on that device"),
        ({"capabilities": ("CURRENT",)}, "not for CURRENT"),
        ({"version_compatible": True}, "no lean runtime"),
        ({"optimization_level": 9}, "give 0 to 5"),
        ({"workspace_bytes": 0}, "at least 1"),
    ],
)
def test_options_without_effect_are_refused(options, said):
    with pytest.raises(EngineError, match=said):
        check_options(BuildOptions(**options), find_library(TENSORRT_RTX))


def test_a_timing_cache_that_would_do_nothing_is_refused(tmp_path):
    with pytest.raises(EngineError, match="no timing cache"):
        check_options(BuildOptions(timing_cache=tmp_path / "t"), find_library(TENSORRT_RTX))


def test_tensorrt_itself_builds_on_its_device_alone():
    with pytest.raises(EngineUnavailableError, match="no CUDA driver is here"):
        check_options(BuildOptions(), Library(TENSORRT, None, "10.3.0", driver=False))
    with pytest.raises(EngineError, match="for the device that it runs on"):
        check_options(
            BuildOptions(capabilities=("SM89",)), Library(TENSORRT, None, "10.3.0", driver=True)
        )
    check_options(BuildOptions(refit=True), Library(TENSORRT, None, "10.3.0", driver=True))


@pytest.mark.skipif(has_driver(), reason="a CUDA driver is here")
def test_a_plan_cannot_run_here_and_says_why(graphs, tmp_path):
    build_plan(graphs("float16"), tmp_path / "p.plan", BuildOptions(**ONE))
    with pytest.raises(EngineUnavailableError, match="ONNX Runtime instead"):
        open_plan(tmp_path / "p.plan", library=TENSORRT_RTX)


def test_files_that_are_no_graph_are_refused(tmp_path):
    with pytest.raises(EngineError, match="no such ONNX file"):
        build_plan(tmp_path / "a.onnx", tmp_path / "a.plan")
    (tmp_path / "a.onnx").write_bytes(b"\x08\x07junk that is no protobuf at all")
    with pytest.raises(EngineError, match=r"a.onnx: tensorrt_rtx .* cannot"):
        build_plan(tmp_path / "a.onnx", tmp_path / "a.plan", BuildOptions(**ONE))


def test_unknown_and_missing_libraries_name_the_remedy(monkeypatch):
    with pytest.raises(ValueError, match="choose tensorrt or tensorrt_rtx"):
        find_library("openvino")
    monkeypatch.setattr("engines.tensorrt.library.MODULES", {TENSORRT: (), TENSORRT_RTX: ()})
    with pytest.raises(EngineUnavailableError, match="JetPack brings it"):
        find_library(TENSORRT)
    with pytest.raises(EngineUnavailableError, match=r"leanvla\[trt-rtx\]"):
        find_library()
