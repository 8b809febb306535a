"""Eight bits with measured ranges: the graphs, the ranges, and by how much actions move."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch

from engines.artefact import Engine
from engines.errors import EngineError
from engines.manifest import read_manifest
from engines.precision import PRECISIONS
from engines.quantise import LEAST
from engines.weights import WEIGHTS, quantise_fp8
from policy.openvla.config import TextConfig, load_config
from policy.openvla.engine.calibrate import calibrating
from policy.openvla.engine.export import Ranges, check_precision, export_policy
from policy.openvla.engine.verify import generated, judge, verify
from tests.policy.tiny import CONFIGS, write_tiny

# Wide enough that its products are worth quantising.
WIDE = replace(
    CONFIGS["oft_discrete_1"],
    text=TextConfig(CONFIGS["oft_discrete_1"].text.vocab_size, 64, 64, 3, 2, 2),
)
PROMPT = 20


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """A checkpoint, and ranges over a made-up episode."""
    folder = tmp_path_factory.mktemp("wide")
    write_tiny(folder / "checkpoint", WIDE)
    with calibrating(folder / "checkpoint", PROMPT) as calibration:
        calibration.see(generated(load_config(folder / "checkpoint"), 3))
        ranges = calibration.ranges("made-up frames")
    return folder, ranges


@pytest.fixture(scope="module", params=["int8-static", "fp8"])
def engine(request, measured):
    folder, ranges = measured
    out = folder / request.param
    export_policy(
        folder / "checkpoint",
        out,
        methods=[],
        keeps=[],
        precision=request.param,
        prompt_tokens=PROMPT,
        ranges=ranges,
    )
    return Engine(out)


def test_every_product_worth_it_has_a_range(measured):
    _, ranges = measured
    layers = {name for name in ranges.by_weight if ".layers." in name}
    parts = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    assert {name.split(".")[-2] for name in layers} == set(parts)
    assert all(0 < value < 1e4 for value in ranges.by_weight.values())
    assert ranges.source == "3 observations of made-up frames"


def test_q_k_and_v_read_one_activation(measured):
    _, ranges = measured
    stem = "language_model.model.layers.1.self_attn"
    assert len({ranges.by_weight[f"{stem}.{part}_proj.weight"] for part in "qkv"}) == 1


def test_graphs_say_it_with_quantize_and_dequantize_alone(engine):
    manifest = engine.manifest
    assert manifest.calibration == "3 observations of made-up frames"
    (layers,) = (g for name, g in manifest.graphs.items() if name == "layers2to3")
    model = onnx.load(engine.folder / layers.file, load_external_data=False)
    kinds = [node.op_type for node in model.graph.node]
    products = 7
    assert kinds.count("QuantizeLinear") == 4, "q, k and v share one, gate and up another"
    assert kinds.count("DequantizeLinear") == 4 + products
    assert not {"DynamicQuantizeLinear", "MatMulInteger"} & set(kinds)
    zeros = [t for t in model.graph.initializer if t.name.endswith("q_zero")]
    wanted = "FLOAT8E4M3FN" if manifest.precision == "fp8" else "INT8"
    assert {onnx.TensorProto.DataType.Name(t.data_type) for t in zeros} == {wanted}


def test_the_ledger_says_by_how_much_actions_move(engine, measured):
    folder, _ = measured
    seen = generated(load_config(folder / "checkpoint"), 2)
    (parity,) = verify(engine, folder / "checkpoint", seen)
    assert judge(engine, parity) is None
    assert 0 < min(stage.cosine for stage in parity.stages.values()) < 1
    assert parity.action_mean_abs <= parity.action_max_abs <= 2.0
    assert read_manifest(engine.folder).parity == [parity]


def test_eight_bits_are_a_quarter_of_the_size(engine, measured):
    folder, _ = measured
    tensors = engine.manifest.files[WEIGHTS].bytes
    config = load_config(folder / "checkpoint")
    layers = config.text.num_hidden_layers * 7 * LEAST * LEAST
    assert tensors < 4 * layers + 4 * config.text.vocab_size * 64 * 2


def test_ranges_of_another_checkpoint_are_refused(measured):
    folder, ranges = measured
    few = Ranges({k: v for k, v in ranges.by_weight.items() if "layers.2" not in k}, "little")
    with pytest.raises(EngineError, match=r"layers\.2\..* was never measured"):
        export_policy(
            folder / "checkpoint",
            folder / "few",
            methods=[],
            keeps=[],
            precision="int8-static",
            prompt_tokens=PROMPT,
            ranges=few,
        )
    assert not (folder / "few").exists()


@pytest.mark.parametrize("name", PRECISIONS)
def test_ranges_are_asked_for_where_they_are_needed_and_refused_elsewhere(name):
    needed = PRECISIONS[name].calibrated
    assert check_precision(name, calibrated=needed) is PRECISIONS[name]
    sentence = "needs ranges measured" if needed else "is not calibrated"
    with pytest.raises(EngineError, match=sentence):
        check_precision(name, calibrated=not needed)


def test_a_calibration_without_a_query_is_refused(measured):
    folder, _ = measured
    with calibrating(folder / "checkpoint", PROMPT) as calibration:
        with pytest.raises(EngineError, match="no observation to calibrate on"):
            calibration.ranges("nothing")
        with pytest.raises(EngineError, match="not finite"):
            calibration.take("head", np.full(len(calibration._weights["head"]), np.nan))


def test_fp8_keeps_weights_within_its_steps():
    weight = torch.randn(32, 48)
    quantised, scale = quantise_fp8(weight)
    error = (quantised.float().T * scale - weight).abs()
    assert (error <= weight.abs() / 16 + scale).all()
