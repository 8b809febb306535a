"""Graphs without weights, one file of weights, and what must not become a graph."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch

from engines.artefact import Engine
from engines.errors import EngineError
from engines.graph import fake_tensors, make_graph
from engines.manifest import read_manifest
from engines.parity import compare
from engines.session import TensorSpec
from engines.weights import WEIGHTS, WeightPlan, quantise
from tests.engines.plain import WIDTH, Double, reference, weights, write_plain


def test_graphs_run_and_equal_the_module(plain_engine):
    engine = Engine(plain_engine)
    for graph, tokens in (("large", 4), ("small", 2)):
        x = torch.randn(1, tokens, WIDTH)
        out = engine.session(graph).run({"x": x.numpy()})
        wanted = reference(weights(), x)
        np.testing.assert_allclose(out["y"], wanted.numpy(), atol=1e-5)
        np.testing.assert_allclose(out["norm"], wanted.pow(2).sum(-1).numpy(), rtol=1e-5)


def test_weights_are_stored_once_and_not_in_graphs(plain_engine):
    manifest = read_manifest(plain_engine)
    assert manifest.files[WEIGHTS].bytes == WIDTH * WIDTH * 4
    for graph in manifest.graphs.values():
        model = onnx.load(plain_engine / graph.file, load_external_data=False)
        assert all(node.op_type != "Transpose" for node in model.graph.node)
        outside = [t for t in model.graph.initializer if t.data_location == t.EXTERNAL]
        places = {entry.key: entry.value for entry in outside[0].external_data}
        assert len(outside) == 1
        assert places["location"] == WEIGHTS
        assert not model.metadata_props
        assert not any(node.metadata_props for node in model.graph.node)


def test_graphs_say_nothing_of_where_they_were_made(plain_engine):
    for path in plain_engine.glob("*.onnx"):
        assert b"/" + b"tests" not in path.read_bytes()
        assert b"site-packages" not in path.read_bytes()


def test_an_engine_is_made_the_same_twice(plain_engine, tmp_path):
    again = write_plain(tmp_path / "again")
    assert again.files == read_manifest(plain_engine).files


def test_int8_stays_close_and_is_a_quarter_of_the_size(tmp_path):
    manifest = write_plain(tmp_path / "int8", "int8")
    x = torch.randn(1, 4, WIDTH)
    out = Engine(tmp_path / "int8").session("large").run({"x": x.numpy()})
    close = compare(out["y"], reference(weights(), x).numpy())
    assert 0.999 < close.cosine < 1.0
    assert manifest.files[WEIGHTS].bytes == WIDTH * WIDTH + WIDTH * 4


def test_quantising_keeps_every_weight_within_half_a_step():
    weight = torch.randn(32, 48) * torch.logspace(-3, 2, 32)[:, None]
    quantised, scale = quantise(weight)
    error = (quantised.T * scale[:, None] - weight).abs()
    assert (error <= 0.5001 * scale[:, None]).all()


class Unread(Double):
    def __init__(self) -> None:
        super().__init__()
        self.inputs = {**self.inputs, "forgotten": TensorSpec((1,), "float32")}


def test_an_input_that_nothing_reads_is_refused():
    with fake_tensors(), pytest.raises(EngineError, match="forgotten unread"):
        make_graph("unread", Unread(), 20, WeightPlan())


def test_a_folder_of_something_else_is_not_replaced(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(EngineError, match="choose another folder"):
        write_plain(tmp_path)
    assert (tmp_path / "thesis.txt").exists()


def test_an_export_that_fails_leaves_the_old_engine(engine_copy, monkeypatch):
    before = read_manifest(engine_copy)
    monkeypatch.setattr("tests.engines.plain.weights", dict)
    with pytest.raises(KeyError):
        write_plain(engine_copy)
    assert read_manifest(engine_copy) == before
    assert [path.name for path in engine_copy.parent.iterdir()] == [engine_copy.name]


def test_a_weight_of_another_shape_is_refused(tmp_path, monkeypatch):
    wrong = {"layers.0.weight": torch.zeros(3, 3)}
    monkeypatch.setattr("tests.engines.plain.weights", lambda: wrong)
    with pytest.raises(EngineError, match=r"layers\.0\.weight has shape \[3, 3\]"):
        write_plain(tmp_path / "wrong")


class SameName(Double):
    def compute(self, **inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"x": super().compute(**inputs)["y"]}


def test_an_output_called_like_an_input_is_refused():
    with fake_tensors(), pytest.raises(EngineError, match="rename"):
        make_graph("same", SameName(), 20, WeightPlan())
