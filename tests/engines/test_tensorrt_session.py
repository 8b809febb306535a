"""Everything of a session that is not a call into TensorRT or CUDA; see `stand_ins`."""

from __future__ import annotations

import hashlib
import sys

import numpy as np
import pytest

from engines.errors import (
    EngineError,
    EngineLostError,
    EngineMemoryError,
    EngineUnavailableError,
)
from engines.session import Session, TensorSpec
from engines.tensorrt.cuda import Cuda
from engines.tensorrt.device import DeviceTensor
from engines.tensorrt.session import open_plan
from engines.tensorrt.types import numpy_type
from tests.engines.stand_ins import FakeCuda, library

X = np.arange(8, dtype=np.float32).reshape(4, 2)


@pytest.fixture
def plan(tmp_path):
    path = tmp_path / "double.plan"
    path.write_bytes(b"a plan")
    return path


def load(plan, cuda, **options):
    kinds = {
        name: options.pop(name) for name in ("adjustable", "refuses", "driver") if name in options
    }
    return open_plan(plan, cuda=Cuda(cuda), found=library(cuda, **kinds), **options)


def test_a_session_runs_and_replays_its_recording(plan):
    cuda = FakeCuda()
    session: Session = load(plan, cuda).session()
    assert session.inputs == {"x": TensorSpec((4, 2), "float32")}
    assert session.outputs == {"y": TensorSpec((4, 2), "float32")}
    assert session.provider == "tensorrt"
    for factor in (1, 2, 3):
        out = session.run({"x": X * factor})
        np.testing.assert_array_equal(out["y"], 2 * factor * X)
    assert cuda.calls.count("cudaStreamBeginCapture") == 1
    assert cuda.calls.count("cudaGraphLaunch") == 2
    session.close()


def test_the_steady_state_allocates_nothing(plan):
    cuda = FakeCuda()
    with load(plan, cuda).session() as session:
        first = session.run({"x": X})["y"]
        session.run({"x": X})
        before = len(cuda.blocks)
        cuda.calls.clear()
        again = session.run({"x": X})["y"]
        assert cuda.calls == ["cudaGraphLaunch", "cudaStreamSynchronize"]
        assert len(cuda.blocks) == before
        assert np.shares_memory(first, again)


def test_closing_gives_everything_back_and_may_be_repeated(plan):
    cuda = FakeCuda()
    session = load(plan, cuda).session()
    session.run({"x": X})
    session.close()
    session.close()
    assert cuda.blocks == {}
    assert cuda.graphs == {}
    with pytest.raises(EngineError, match="closed"):
        session.run({"x": X})


def test_without_a_graph_every_query_is_enqueued(plan):
    cuda = FakeCuda()
    with load(plan, cuda).session(cuda_graph=False) as session:
        for _ in range(3):
            np.testing.assert_array_equal(session.run({"x": X})["y"], 2 * X)
    assert "cudaStreamBeginCapture" not in cuda.calls
    assert cuda.calls.count("cudaMemcpyAsync") == 6


def test_every_rung_is_a_session_of_its_own_on_shared_weights(plan):
    cuda = FakeCuda()
    engine = load(plan, cuda, adjustable=True)
    small, large = engine.session(profile=1, values={"k": 1}), engine.session(values={"k": 3})
    assert small.outputs["y"].shape == (1, 2)
    assert large.outputs["y"].shape == (3, 2)
    for session, count in ((small, 1), (large, 3), (small, 1)):
        out = session.run({"x": X, "k": np.array(count)})
        np.testing.assert_array_equal(out["y"], 2 * X[:count])
    with pytest.raises(EngineError, match="k is 1 in this session and 3 in the query"):
        small.run({"x": X, "k": np.array(3)})
    small.close()
    large.close()
    assert cuda.blocks == {}


def test_a_value_that_decides_shapes_must_be_given(plan):
    cuda = FakeCuda()
    engine = load(plan, cuda, adjustable=True)
    with pytest.raises(EngineError, match="a value is needed for k, given for nothing"):
        engine.session()
    with pytest.raises(EngineError, match="profile 5 of 2"):
        engine.session(profile=5, values={"k": 1})
    assert cuda.blocks == {}, "a session that was refused must leave nothing behind"


def test_an_input_may_stay_on_the_device(plan):
    cuda = FakeCuda()
    engine = load(plan, cuda)
    first, second = engine.session(), engine.session()
    first.run({"x": X})
    first.run({"x": X})
    second.use_pointer("x", first.device_pointers["y"])
    np.testing.assert_array_equal(second.run({})["y"], 4 * X)
    first.run({"x": 10 * X})
    np.testing.assert_array_equal(second.run({})["y"], 40 * X)
    with pytest.raises(EngineError, match="no device input is named z"):
        second.use_pointer("z", 1)


def test_an_output_may_stay_on_the_device_and_be_fed_to_the_next_session(plan):
    cuda = FakeCuda()
    engine = load(plan, cuda)
    first, second = engine.session(resident=lambda name: name == "y"), engine.session()
    for factor in (1, 2, 3):
        handle = first.run({"x": factor * X})["y"]
        assert isinstance(handle, DeviceTensor)
        assert (handle.shape, handle.dtype) == ((4, 2), np.float32)
        np.testing.assert_array_equal(second.run({"x": handle})["y"], 4 * factor * X)
    assert cuda.calls.count("cudaStreamBeginCapture") == 2, "one recording each: nothing moved"
    np.testing.assert_array_equal(second.run({"x": X})["y"], 2 * X)
    np.testing.assert_array_equal(second.run({"x": handle})["y"], 12 * X)
    assert cuda.calls.count("cudaStreamBeginCapture") == 4
    first.close()
    second.close()
    assert cuda.blocks == {}


def test_a_token_is_put_into_its_slot_of_a_cache_on_the_device():
    runtime = FakeCuda()
    cuda = Cuda(runtime)
    arrays = np.zeros((2, 3, 5, 4), np.float32), np.arange(24, dtype=np.float32)
    cache, new = arrays[0], arrays[1].reshape(2, 3, 1, 4)
    on_device = [
        DeviceTensor(a.__array_interface__["data"][0], TensorSpec(a.shape, "float32"), cuda)
        for a in (cache, new)
    ]
    on_device[0].put(3, on_device[1])
    np.testing.assert_array_equal(cache[:, :, 3], new[:, :, 0])
    assert not cache[:, :, [0, 1, 2, 4]].any()
    with pytest.raises(EngineError, match="does not fit into slot 5"):
        on_device[0].put(5, on_device[1])
    with pytest.raises(EngineError, match="does not fit"):
        on_device[1].put(0, on_device[0])


@pytest.mark.parametrize(
    ("feeds", "said"),
    [
        ({}, "input x is missing"),
        ({"x": X.astype(np.float64)}, r"float64 \[4, 2\], the engine takes float32 \[4, 2\]"),
        ({"x": X[:2]}, r"float32 \[2, 2\]"),
        ({"x": X, "z": X}, "no input is named z"),
    ],
)
def test_feeds_that_do_not_fit_never_reach_the_device(plan, feeds, said):
    cuda = FakeCuda()
    with load(plan, cuda).session() as session:
        cuda.calls.clear()
        with pytest.raises(EngineError, match=said):
            session.run(feeds)
        assert cuda.calls == []


def test_a_damaged_plan_is_refused_before_the_library_sees_it(plan):
    good = hashlib.sha256(plan.read_bytes()).hexdigest()
    assert load(plan, FakeCuda(), sha256=good)
    plan.write_bytes(b"a pla")
    with pytest.raises(EngineError, match=r"hash differs.*leanvla build"):
        load(plan, FakeCuda(), sha256=good)
    plan.write_bytes(b"")
    with pytest.raises(EngineError, match="is empty"):
        load(plan, FakeCuda())
    plan.unlink()
    with pytest.raises(EngineError, match="no such plan"):
        load(plan, FakeCuda())


def test_a_plan_of_another_version_or_device_names_the_rebuild(plan):
    with pytest.raises(
        EngineError, match=r"tensorrt 10.3.0 refuses it .*not compatible.*leanvla build"
    ):
        load(plan, FakeCuda(), refuses=True)


def test_no_driver_is_said_at_once(plan):
    with pytest.raises(EngineUnavailableError, match="an NVIDIA GPU with a CUDA driver is not"):
        load(plan, FakeCuda(), driver=False)


def test_no_room_names_needed_and_free(plan):
    with pytest.raises(EngineMemoryError, match=r"needs at least 0 MB.*0 MB are free"):
        load(plan, FakeCuda(free=3))
    assert (
        load(plan, FakeCuda(free=3), weight_budget_bytes=2).engine.weight_streaming_budget_v2 == 2
    )


@pytest.mark.parametrize(
    ("code", "error", "said"),
    [
        (2, EngineMemoryError, "32 bytes on the device"),
        (700, EngineLostError, "start the process again"),
        (35, EngineUnavailableError, "CUDA error 35"),
    ],
)
def test_cuda_errors_have_their_own_kinds(plan, code, error, said):
    cuda = FakeCuda()
    engine = load(plan, cuda)
    cuda.fail["cudaMalloc"] = code
    with pytest.raises(error, match=said):
        engine.session()
    assert cuda.blocks == {}


def test_a_query_that_fails_is_a_lost_device(plan):
    cuda = FakeCuda()
    engine = load(plan, cuda)
    session = engine.session()
    engine.engine.contexts[-1].fail = True
    with pytest.raises(EngineLostError, match="cannot run"):
        session.run({"x": X})


def test_a_capture_that_fails_names_the_way_out(plan):
    cuda = FakeCuda()
    session = load(plan, cuda).session()
    cuda.fail["cudaGraphInstantiate"] = 801
    with pytest.raises(EngineUnavailableError, match="cuda_graph=False"):
        session.run({"x": X})


def test_numpy_names_of_types():
    assert numpy_type("float16") == np.float16
    assert numpy_type("bfloat16").itemsize == 2
    assert numpy_type("float8_e4m3fn").itemsize == 1


def test_missing_ml_dtypes_and_cuda_python_name_their_packages(monkeypatch):
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    with pytest.raises(EngineUnavailableError, match="ml_dtypes"):
        numpy_type("float_of_tomorrow")
    for name in ("cuda", "cuda.bindings"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(EngineUnavailableError, match="pip install cuda-python"):
        Cuda()
