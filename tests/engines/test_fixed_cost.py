"""What a session costs beside its kernels: no memory after the first run, and little time."""

from __future__ import annotations

import gc
import time
import tracemalloc

import numpy as np
import pytest

from engines.ort import OrtSession
from tests.engines.plain import WIDTH

onnx = pytest.importorskip("onnx")
MOST_MS = 0.2
TENSORS = 8
ARRAYS = tracemalloc.DomainFilter(inclusive=True, domain=np.lib.tracemalloc_domain)


@pytest.fixture(scope="module")
def idle(tmp_path_factory):
    """Eight tensors in, eight out, next to no work: whatever its run takes is overhead."""
    from onnx import TensorProto, helper

    def value(name):
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4, 8])

    names = range(TENSORS)
    graph = helper.make_graph(
        [helper.make_node("Neg", [f"x{i}"], [f"y{i}"]) for i in names],
        "idle",
        [value(f"x{i}") for i in names],
        [value(f"y{i}") for i in names],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
    model.ir_version = 10
    path = tmp_path_factory.mktemp("idle") / "idle.onnx"
    onnx.save(model, path)
    return path


def test_a_run_takes_no_memory_for_arrays_after_the_first(plain_engine):
    """Outputs lie where they lay, and inputs are read where they lie."""
    session = OrtSession(plain_engine / "large.onnx")
    x = np.ones((1, 4, WIDTH), np.float32)
    first = session.run({"x": x})
    addresses = {name: array.ctypes.data for name, array in first.items()}
    gc.collect()
    tracemalloc.start()
    try:
        for _ in range(20):
            out = session.run({"x": x})
        peak = tracemalloc.get_traced_memory()[1]
        taken = tracemalloc.take_snapshot().filter_traces([ARRAYS])
    finally:
        tracemalloc.stop()
    assert sum(trace.size for trace in taken.traces) == 0
    assert peak < 16_384, "small objects of Python, in flight"
    assert {name: array.ctypes.data for name, array in out.items()} == addresses


def test_a_chain_of_sessions_binds_each_array_once(plain_engine, monkeypatch):
    """What one session gives is the same array every time, so the next has nothing to bind."""
    first, second = (OrtSession(plain_engine / "large.onnx") for _ in range(2))
    bound = []
    take = second._host._take
    monkeypatch.setattr(second._host, "_take", lambda *args: (bound.append(args[0]), take(*args)))
    for number in range(4):
        hidden = first.run({"x": np.full((1, 4, WIDTH), number, np.float32)})["y"]
        out = second.run({"x": hidden})["y"]
        wanted = OrtSession(plain_engine / "large.onnx").run({"x": hidden.copy()})["y"]
        np.testing.assert_array_equal(out, wanted)
    assert bound == ["x"]


def test_an_input_that_does_not_lie_in_one_piece_is_read_right_every_time(idle):
    session = OrtSession(idle)
    feeds = {f"x{i}": np.zeros((1, 4, 8), np.float32) for i in range(TENSORS)}
    slanted = np.zeros((1, 8, 4), np.float32).transpose(0, 2, 1)
    spread = np.broadcast_to(np.float32(3.0), (1, 4, 8))
    for number in range(3):
        slanted[...] = number
        out = session.run({**feeds, "x0": slanted, "x1": spread})
        assert (out["y0"] == -number).all()
        assert (out["y1"] == -3).all()


@pytest.mark.alone
def test_a_call_costs_less_than_a_fifth_of_a_millisecond(idle):
    session = OrtSession(idle)
    feeds = {f"x{i}": np.zeros((1, 4, 8), np.float32) for i in range(TENSORS)}
    times_ms = []
    for _ in range(300):
        began = time.perf_counter()
        session.run(feeds)
        times_ms.append((time.perf_counter() - began) * 1e3)
    assert np.percentile(times_ms[50:], 25) < MOST_MS
