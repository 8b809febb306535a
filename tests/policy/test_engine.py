"""Engines of whole policies: graphs in ONNX Runtime beside the eager model, and without torch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from engines.artefact import Engine, open_ort
from engines.errors import EngineError, EngineMemoryError
from engines.graph import fake_tensors, make_graph, save_graph
from engines.manifest import read_manifest
from engines.ort import OrtSession
from engines.weights import WEIGHTS, WeightPlan, write_weights
from policy.openvla.checkpoint import load_tensors
from policy.openvla.config import load_config
from policy.openvla.engine.export import export_policy
from policy.openvla.engine.plan import make_plan
from policy.openvla.engine.policy import EnginePolicy, stays_on_device
from policy.openvla.engine.reference import Reference
from policy.openvla.engine.rungs import choose_rungs
from policy.openvla.engine.stages import RopeTable, table_length
from policy.openvla.engine.verify import generated, judge, verify
from policy.openvla.model import OpenVLAModel
from policy.openvla.sequence import layout_of
from policy.registry import load_policy
from pruning.registry import make_method
from tests.engines.stand_ins import Kept
from tests.house.rules import ROOT
from tests.policy.engines import eager, observations
from tests.policy.tiny import CONFIGS, TEXT, write_tiny

# Grouped keys, two towers, one action token at a time; the action layer lies below the cut.
AUTOREGRESSIVE = replace(CONFIGS["fused_ar"], text=replace(TEXT, num_key_value_heads=2))
METHOD = "vla_pruner:action_layer=1"


@pytest.fixture(scope="module")
def autoregressive(tmp_path_factory):
    """A checkpoint, and its engine with two budgets."""
    folder = tmp_path_factory.mktemp("autoregressive")
    write_tiny(folder / "checkpoint", AUTOREGRESSIVE)
    export_policy(
        folder / "checkpoint", folder / "engine", methods=[METHOD], keeps=[0.5], prompt_tokens=24
    )
    return folder


@pytest.mark.parametrize(("method", "keep"), [("dense", 1.0), (METHOD, 0.5), ("random", 1.0)])
def test_action_tokens_of_an_engine_are_those_of_the_model(autoregressive, method, keep):
    mine = load_policy(autoregressive / "engine", method=method, keep=keep, unnorm_key="a")
    model = eager(autoregressive / "checkpoint", method, keep)
    state, eager_state = mine.initial_state(), model.initial_state()
    for seen in observations(model.config):
        chunk, state, timing = mine.infer(seen, state)
        wanted, eager_state, eager_timing = model.infer(seen, eager_state)
        np.testing.assert_array_equal(chunk.tokens, wanted.tokens)
        np.testing.assert_array_equal(chunk.actions, wanted.actions)
        np.testing.assert_array_equal(np.stack(chunk.kept), np.stack(wanted.kept))
        assert timing.kept_tokens == eager_timing.kept_tokens
        assert set(timing.phase_ms) == set(eager_timing.phase_ms)
    for entry, other in zip(state.entries, eager_state.entries, strict=True):
        np.testing.assert_allclose(entry, other, rtol=1e-3, atol=1e-6)
    assert mine.observation_spec == model.observation_spec
    assert mine.action_spec == model.action_spec


def test_tensors_may_stay_on_a_device_and_buffers_be_used_again(autoregressive):
    """The host opens nothing that stays, and keeps nothing that is written over."""

    def on_device(path):
        return Kept(OrtSession(path), stays_on_device)

    folder, method = autoregressive / "engine", make_method(METHOD, keep=0.5)
    kept = EnginePolicy.from_folder(folder, method=method, unnorm_key="a", opener=on_device)
    plain = EnginePolicy.from_folder(folder, method=method, unnorm_key="a")
    assert kept.runs_on == "tensorrt fp32"
    answers = []
    for policy in (kept, plain):
        state, found = policy.initial_state(), []
        for seen in observations(policy.config, 4):
            chunk, state, _ = policy.infer(seen, state)
            found.append(chunk)
        answers.append((found, state))
    for mine, other in zip(answers[0][0], answers[1][0], strict=True):
        np.testing.assert_array_equal(mine.tokens, other.tokens)
        np.testing.assert_array_equal(np.stack(mine.kept), np.stack(other.kept))
    for mine, other in zip(answers[0][1].entries, answers[1][1].entries, strict=True):
        np.testing.assert_array_equal(mine, other)


def test_the_same_observation_and_state_give_the_same_bits(autoregressive):
    policy = load_policy(autoregressive / "engine", method=METHOD, keep=0.5, unnorm_key="a")
    first, second = observations(policy.config)[:2]
    _, state, _ = policy.infer(first, policy.initial_state())
    answers = [policy.infer(second, state) for _ in range(2)]
    assert (answers[0].chunk.actions == answers[1].chunk.actions).all()
    assert (answers[0].state.entries[0] == answers[1].state.entries[0]).all()


def test_the_ledger_is_green_and_written(autoregressive):
    engine = Engine(autoregressive / "engine")
    seen = generated(load_config(autoregressive / "checkpoint"), 4)
    ledger = verify(engine, autoregressive / "checkpoint", seen)
    assert [judge(engine, parity) for parity in ledger] == [None, None]
    assert read_manifest(autoregressive / "engine").parity == ledger
    stages = {key.partition(".")[0] for key in ledger[1].stages}
    assert {"vision", "head"} < stages
    assert any(name.startswith("decode") for name in stages)
    worse = replace_stage(ledger[1], "vision.visual", 0.9)
    assert "vision.visual has cosine 0.9" in (judge(engine, worse) or "")


def test_rungs_are_chosen_as_a_rollout_does_and_the_ledger_keeps_the_others(autoregressive):
    engine, config = Engine(autoregressive / "engine"), load_config(autoregressive / "checkpoint")
    dense, pruned = engine.manifest.rungs
    choose = partial(choose_rungs, engine.manifest, config)
    assert choose([], []) == choose([METHOD], [1.0, 0.5]) == choose([], [0.5]) == [dense, pruned]
    assert choose(["dense"], [0.5]) == choose([METHOD], [1.0]) == [dense]
    for methods, keeps in ((["fastv"], []), ([METHOD], [0.25]), (["vla_pruner"], [0.5])):
        with pytest.raises(EngineError, match=r"it has dense; vla_pruner:action_layer=1 at 0\.5"):
            choose(methods, keeps)
    seen = generated(config, 2)
    verify(engine, autoregressive / "checkpoint", seen)
    (again,) = verify(engine, autoregressive / "checkpoint", seen[:1], rungs=[dense])
    ledger = read_manifest(autoregressive / "engine").parity
    assert [(parity.method, parity.observations) for parity in ledger] == [
        ("dense", 1),
        (METHOD, 2),
    ]
    assert ledger[0] == again


def replace_stage(parity, key, cosine):
    import msgspec

    stages = {**parity.stages, key: msgspec.structs.replace(parity.stages[key], cosine=cosine)}
    return msgspec.structs.replace(parity, stages=stages)


def test_other_weights_fail_the_verification(autoregressive, tmp_path):
    write_tiny(tmp_path / "other", replace(AUTOREGRESSIVE, rate_hz=7.0), shard_bytes=200_000)
    engine = Engine(autoregressive / "engine")
    with pytest.raises(EngineError, match="made from other weights"):
        verify(engine, tmp_path / "other", [])


@pytest.mark.parametrize(
    ("method", "keep"), [(METHOD, 0.25), ("vla_pruner:action_layer=2", 0.5), ("fastv", 0.5)]
)
def test_what_is_no_rung_is_refused_with_the_rungs(autoregressive, method, keep):
    with pytest.raises(EngineError, match=r"it has dense; vla_pruner:action_layer=1 at 0\.5"):
        load_policy(autoregressive / "engine", method=method, keep=keep, unnorm_key="a")


def test_a_count_finds_the_rung_of_its_ratio(autoregressive):
    policy = load_policy(autoregressive / "engine", method=METHOD, keep=8, unnorm_key="a")
    assert policy.rung.keep == 0.5


def test_a_type_cannot_be_chosen_any_more(autoregressive):
    with pytest.raises(ValueError, match="fixed when exported"):
        load_policy(autoregressive / "engine", dtype="float16", unnorm_key="a")


def test_out_of_memory_takes_the_next_lower_rung_where_allowed(autoregressive, monkeypatch):
    """F24: one retry with fewer tokens, else a stop that gives all memory back."""
    engine = Engine(autoregressive / "engine")
    rungs = [*engine.manifest.rungs]
    wide = engine.manifest.__class__(**{
        **{f: getattr(engine.manifest, f) for f in engine.manifest.__struct_fields__},
        "rungs": [*rungs, rungs[1].__class__(METHOD, 0.75, 12, rungs[1].cut, rungs[0].stages)],
    })  # fmt: skip
    monkeypatch.setattr(engine, "manifest", wide)
    for allowed in (True, False):
        method = make_method(METHOD, keep=0.75)
        policy = EnginePolicy(engine, method, "a", lower_when_full=allowed)
        seen = observations(policy.config)[0]

        def full(*_):
            raise EngineMemoryError("CUDA failure 2: out of memory")

        monkeypatch.setattr(policy.runtime, "run", full)
        if allowed:
            answer = policy.infer(seen, policy.initial_state())
            assert (answer.timing.kept_tokens, policy.lowered) == (8, 1)
        else:
            with pytest.raises(EngineMemoryError):
                policy.infer(seen, policy.initial_state())
            assert not engine._sessions


@pytest.mark.parametrize("stage", ["vision", "head", "layers2to4_keep4_action2"])
def test_graphs_of_an_oft_checkpoint_with_everything(tmp_path, stage):
    """FiLM, two towers and views, proprioception, L1 head: graphs against the modules."""
    config = write_tiny(tmp_path / "oft", "oft_l1")
    plan = make_plan(config, ["vla_pruner:action_layer=2"], [0.25], 20)
    weights = WeightPlan()
    with fake_tensors():
        module = plan.stages[stage](OpenVLAModel(config).eval().requires_grad_(False))
        save_graph(make_graph(stage, module, 23, weights), tmp_path / f"{stage}.onnx")
    length = table_length(config, layout_of(config, 20))
    tensors = load_tensors(tmp_path / "oft") | RopeTable.values(config.text, length)
    write_weights(tmp_path / WEIGHTS, weights.entries(), tensors.__getitem__)
    session = OrtSession(tmp_path / f"{stage}.onnx")
    reference = Reference(tmp_path / "oft", config, plan).session(stage)
    rng = np.random.default_rng(0)
    for prompt in (6, 20):
        feeds = {
            name: rng.normal(size=spec.shape).astype(np.float32)
            if spec.dtype == "float32"
            else rng.integers(3, 60, spec.shape)
            for name, spec in session.inputs.items()
        }
        if "prompt" in feeds:
            feeds["prompt"] = np.array([prompt])
        if "kept" in feeds:
            feeds["kept"] = np.array([[0, 3, 8, 15], [2, 5, 6, 7]])
        have, want = session.run(feeds), reference.run(feeds)
        for name, value in want.items():
            np.testing.assert_allclose(have[name], value, rtol=1e-4, atol=1e-5)


def test_an_engine_runs_without_torch(autoregressive):
    """Loading, a query, the pruner's memory: torch is made impossible to import."""
    code = """
import sys, json
import numpy as np
class Gone:
    def find_spec(self, name, path=None, target=None):
        if name.partition('.')[0] in ('torch', 'onnx', 'onnxscript', 'onnx_ir'):
            raise ModuleNotFoundError(name, name=name)
sys.meta_path.insert(0, Gone())
from policy.registry import load_policy
from policy.types import Observation
policy = load_policy(sys.argv[1], method=sys.argv[2], keep=0.5, unnorm_key='a')
state = policy.initial_state()
for step in range(3):
    frame = np.random.default_rng(step).integers(0, 255, (32, 32, 3), np.uint8)
    chunk, state, timing = policy.infer(Observation((frame,), None, 'pick up', step / 10), state)
print(json.dumps([len(state.entries), timing.kept_tokens, 'torch' in sys.modules]))
"""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code, str(autoregressive / "engine"), METHOD]
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [3, 8, False]


def test_threads_and_provider_reach_the_runtime(autoregressive, monkeypatch):
    seen = {}

    def spy(**options):
        seen.update(options)
        return open_ort()

    monkeypatch.setattr("policy.openvla.engine.policy.open_ort", spy)
    load_policy(autoregressive / "engine", threads=3, device="cuda", unnorm_key="a")
    assert seen == {"provider": "cuda", "threads": 3, "allow_cpu": False}


def test_half_precision_has_half_the_weights(tmp_path):
    """Types of what passes between stages, and of the stored weights; not run: no half on CPUs."""
    config = write_tiny(tmp_path / "ar", "single_ar")
    plan = make_plan(config, [], [], 20, "float16")
    weights = WeightPlan()
    torch.set_default_dtype(torch.float16)
    try:
        with fake_tensors():
            module = plan.stages["vision"](OpenVLAModel(config).eval().requires_grad_(False))
            make_graph("vision", module, 23, weights)
            outputs = module.outputs()
    finally:
        torch.set_default_dtype(torch.float32)
    assert {spec.dtype for spec in outputs.values()} == {"float16"}
    assert {place.dtype for place in weights.places.values()} == {"float16"}


def test_one_graph_between_vision_and_head_chooses_as_many_do(tmp_path):
    """The whole prefill as one graph, with its two cuts' choices inside."""
    config = write_tiny(tmp_path / "oft", "oft_discrete_1")
    method = "transprune"
    export_policy(
        tmp_path / "oft",
        tmp_path / "engine",
        methods=[method],
        keeps=[0.25],
        prompt_tokens=20,
        fused=True,
    )
    policy = load_policy(tmp_path / "engine", method=method, keep=0.25)
    model = eager(tmp_path / "oft", method, 0.25)
    assert set(policy.rung.stages) == {"vision", "prefill", "head"}
    for seen in observations(config, 3):
        have = policy.infer(seen, policy.initial_state())
        want = model.infer(seen, model.initial_state())
        np.testing.assert_array_equal(have.chunk.tokens, want.chunk.tokens)
        np.testing.assert_array_equal(np.stack(have.chunk.kept), np.stack(want.chunk.kept))
        assert have.timing.kept_sequence_tokens == want.timing.kept_sequence_tokens
    assert policy.pruner.calls == model.pruner.calls > 0
