"""The session interface: what it refuses, and that every runtime behind it answers alike."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from engines.artefact import Engine
from engines.errors import EngineError, EngineLostError, EngineUnavailableError
from engines.ort import OrtSession
from engines.parity import StageLedger, compare
from engines.torch_session import TorchSession
from tests.engines.plain import WIDTH, Double, weights


def loaded():
    stage = Double(4)
    stage.load_state_dict(weights())
    return stage


@pytest.fixture(params=["onnxruntime", "onnxruntime bound", "torch", "torch compiled"])
def session(request, plain_engine):
    if request.param == "torch":
        return TorchSession("large", loaded())
    if request.param == "torch compiled":  # traced by a compiler that needs no C++ behind it
        return TorchSession("large", loaded(), "compiled", backend="aot_eager")
    resident = () if request.param == "onnxruntime" else ("norm",)
    return OrtSession(plain_engine / "large.onnx", resident=resident)


def test_every_runtime_answers_alike(session, plain_engine):
    x = np.random.default_rng(0).normal(size=(1, 4, WIDTH)).astype(np.float32)
    wanted = OrtSession(plain_engine / "large.onnx").run({"x": x})
    with session:
        out = session.run({"x": x})
        assert list(out) == list(session.outputs) == ["y", "norm"]
        assert compare(out["y"], wanted["y"]).max_abs < 1e-5
        norm = out["norm"]
        norm = norm if isinstance(norm, np.ndarray) else norm.numpy()
        assert compare(norm, wanted["norm"]).max_abs < 1e-4
        assert session.inputs["x"] == ((1, 4, WIDTH), "float32")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="records a CUDA graph")
@pytest.mark.parametrize("mode", ["eager", "compiled", "cuda-graph"])
def test_torch_on_a_gpu_answers_alike_every_time(plain_engine, mode):
    session = TorchSession("large", loaded(), mode, device="cuda")
    rng, plain = np.random.default_rng(0), OrtSession(plain_engine / "large.onnx")
    for _ in range(3):
        x = rng.normal(size=(1, 4, WIDTH)).astype(np.float32)
        assert compare(session.run({"x": x})["y"], plain.run({"x": x})["y"]).max_abs < 1e-3


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
@pytest.mark.parametrize(
    ("mode", "device", "said"),
    [("cuda-graph", "cpu", "needs a CUDA device, not cpu"), ("eager", "cuda", "sees no GPU")],
)
def test_what_torch_cannot_give_here_is_refused(mode, device, said):
    with pytest.raises(EngineUnavailableError, match=said):
        TorchSession("large", loaded(), mode, device=device)


def test_an_output_that_stays_on_the_device_feeds_the_next_session(plain_engine):
    first = OrtSession(plain_engine / "large.onnx", resident=("y",))
    second = OrtSession(plain_engine / "large.onnx", resident=("norm",))
    x = np.ones((1, 4, WIDTH), np.float32)
    handle = first.run({"x": x})["y"]
    plain = OrtSession(plain_engine / "large.onnx")
    wanted = plain.run({"x": plain.run({"x": x})["y"]})
    np.testing.assert_allclose(second.run({"x": handle})["y"], wanted["y"], rtol=1e-5)


@pytest.mark.parametrize("copied_bytes", [0, 1 << 16], ids=["bound anew", "copied"])
def test_arrays_that_come_and_go_are_read_as_they_are_now(plain_engine, monkeypatch, copied_bytes):
    monkeypatch.setattr("engines.ort.COPIED_BYTES", copied_bytes)
    rng, session = np.random.default_rng(0), OrtSession(plain_engine / "large.onnx")
    stays = np.empty((1, 4, WIDTH), np.float32)
    for turn in range(6):  # the same array with new values, a new one, a view that is no block
        x = rng.normal(size=(1, WIDTH, 4)).astype(np.float32).transpose(0, 2, 1)
        x = [stays, x.copy(), x][turn % 3]
        x[:] = rng.normal(size=x.shape)
        held, wanted = x.copy(), OrtSession(plain_engine / "large.onnx").run({"x": x.copy()})
        np.testing.assert_array_equal(session.run({"x": x})["y"], wanted["y"])
        np.testing.assert_array_equal(x, held)
        with pytest.raises(EngineError, match="the engine takes"):
            session.run({"x": x[:, :1]})


@pytest.mark.parametrize(
    ("feeds", "sentence"),
    [
        ({}, "input x is missing, give float32"),
        ({"x": np.zeros((1, 3, WIDTH), np.float32)}, r"float32 \[1, 3, 64\], the engine takes"),
        ({"x": np.zeros((1, 4, WIDTH))}, "float64"),
        ({"x": np.zeros((1, 4, WIDTH), np.float32), "z": np.zeros(1)}, "no input is named z"),
    ],
)
def test_a_wrong_feed_is_one_sentence(plain_engine, feeds, sentence):
    with pytest.raises(EngineError, match=sentence):
        OrtSession(plain_engine / "large.onnx").run(feeds)


def test_a_closed_session_refuses(plain_engine):
    session = OrtSession(plain_engine / "large.onnx")
    session.close()
    session.close()
    with pytest.raises(EngineLostError, match="closed"):
        session.run({"x": np.zeros((1, 4, WIDTH), np.float32)})


def test_sessions_are_opened_once_and_released(plain_engine):
    engine = Engine(plain_engine)
    first = engine.session("large")
    assert engine.session("large") is first
    engine.release(["large"])
    assert engine.session("large") is not first


def test_the_ledger_keeps_the_worst():
    ledger = StageLedger()
    want = np.array([1.0, 2.0])
    ledger.add("a", {"x": want + 0.5}, {"x": want})
    ledger.add("a", {"x": want}, {"x": want})
    assert ledger.worst["a.x"].max_abs == 0.5
    assert ledger.worst["a.x"].cosine < 1.0
    assert compare(np.array([np.nan]), np.array([1.0])).cosine == -1.0
    assert compare(torch.zeros(3).numpy(), np.zeros(3)).cosine == 1.0
