"""Plans in the place of graphs: opened when they belong together, refused with the command else."""

from __future__ import annotations

import json

import numpy as np
import pytest

from engines.errors import EngineError, EngineUnavailableError
from engines.manifest import sha256
from engines.tensorrt.cuda import Cuda
from engines.tensorrt.plans import REPORT, SCHEMA, Plans
from engines.weights import WEIGHTS
from tests.engines.stand_ins import FakeCuda, library

X = np.arange(8, dtype=np.float32).reshape(4, 2)


@pytest.fixture
def built(tmp_path):
    """An engine's graph and weights, and the plan that was built from them."""
    engine, plans = tmp_path / "engine", tmp_path / "plans"
    engine.mkdir()
    plans.mkdir()
    (engine / "double.onnx").write_bytes(b"a graph")
    (engine / WEIGHTS).write_bytes(b"weights")
    (plans / "double.plan").write_bytes(b"a plan")
    entry = {
        "library": "tensorrt",
        "version": "10.3.0",
        "plan_sha256": sha256(plans / "double.plan"),
        "onnx_sha256": sha256(engine / "double.onnx"),
        "weights_sha256": sha256(engine / WEIGHTS),
        "build_s": 1.0,
        "contents": {"layers": {}},
    }
    report = {"schema": SCHEMA, "executed": False, "plans": {"double.plan": entry}}
    (plans / REPORT).write_text(json.dumps(report))
    return tmp_path


def opener(built, **options):
    cuda = FakeCuda()
    found = library(cuda, driver=options.pop("driver", True))
    return Plans(built / "plans", cuda=Cuda(cuda), found=found, **options)


def change(built, **fields):
    path = built / "plans" / REPORT
    report = json.loads(path.read_text())
    report["plans"]["double.plan"] |= fields
    path.write_text(json.dumps(report))


def test_a_plan_runs_where_its_graph_would(built):
    with opener(built)(built / "engine" / "double.onnx") as session:
        assert session.provider == "tensorrt"
        np.testing.assert_array_equal(session.run({"x": X})["y"], 2 * X)


@pytest.mark.parametrize(
    ("file", "said"),
    [("double.onnx", "built from another graph"), (WEIGHTS, "built with other weights")],
)
def test_a_plan_of_another_graph_or_of_other_weights_is_refused(built, file, said):
    (built / "engine" / file).write_bytes(b"changed")
    with pytest.raises(EngineError, match=rf"{said}: build again with `leanvla build .*engine"):
        opener(built)(built / "engine" / "double.onnx")


def test_a_plan_of_another_version_is_refused_unless_it_was_built_for_that(built):
    graph = built / "engine" / "double.onnx"
    change(built, version="10.0.1")
    with pytest.raises(EngineError, match=r"built by tensorrt 10.0.1, tensorrt 10.3.0 is here"):
        opener(built)(graph)
    change(built, version_compatible=True)
    opener(built)(graph).close()


def test_a_changed_plan_is_refused_before_the_library_sees_it(built):
    (built / "plans" / "double.plan").write_bytes(b"a plot")
    with pytest.raises(EngineError, match="hash differs"):
        opener(built)(built / "engine" / "double.onnx")


def test_a_run_time_budget_is_no_rung(built):
    change(built, profiles=["k=4"])
    with pytest.raises(EngineError, match="one static plan per rung"):
        opener(built)(built / "engine" / "double.onnx")


def test_a_graph_without_a_plan_and_a_machine_without_a_gpu_are_named(built):
    with pytest.raises(EngineError, match=r"no other.plan: build again"):
        opener(built)(built / "engine" / "other.onnx")
    with pytest.raises(EngineUnavailableError, match="an NVIDIA GPU with a CUDA driver is not"):
        opener(built, driver=False)(built / "engine" / "double.onnx")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "give a folder that `leanvla build` wrote"),
        ("{", "is damaged"),
        ('{"schema": "leanvla.build/0"}', "and not leanvla.build/1"),
        ('{"schema": "leanvla.build/1", "plans": {"a.plan": {}}}', "is damaged"),
    ],
)
def test_a_folder_of_something_else_is_refused(built, text, said):
    path = built / "plans" / REPORT
    path.unlink() if text is None else path.write_text(text)
    with pytest.raises(EngineError, match=said):
        opener(built)
