"""Graphs that ship beside `mini`: right for the weights that are there now, and refused else."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from engines.artefact import Engine
from engines.errors import EngineError
from engines.graph_set import GRAPHS, read_graph_set
from engines.manifest import read_manifest
from policy.openvla.checkpoint import load_arrays, load_tensors, weights_sha256
from policy.openvla.engine.pack import KEEPS, METHODS, compare_graphs
from policy.openvla.engine.packaged import FOLDER, packaged_engine, packaged_graphs
from policy.registry import packaged_policies, resolve_policy
from tests.house.rules import ROOT
from tests.policy.tiny import write_tiny

STALE = "the graphs beside mini are not those of this code and checkpoint: run `make graphs`"
MOST_BYTES = 5_000_000


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LEANVLA_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="module")
def mini():
    return resolve_policy("mini")


@pytest.fixture
def copy(mini, tmp_path):
    return shutil.copytree(mini, tmp_path / "mini")


@pytest.mark.parametrize("name", packaged_policies())
def test_the_graphs_beside_a_policy_belong_to_its_architecture(name):
    policy = resolve_policy(name)
    try:
        graphs = packaged_graphs(policy)
    except EngineError as error:
        pytest.fail(f"{STALE} ({error})")
    assert graphs is not None, STALE
    have = {(rung.method, rung.keep) for rung in graphs.rungs}
    assert have == {("dense", 1.0), *((m, k) for m in METHODS for k in KEEPS)}, STALE
    assert sum(path.stat().st_size for path in (policy / FOLDER).iterdir()) < MOST_BYTES


@pytest.mark.slow
def test_the_graphs_beside_mini_say_what_mini_says(mini):
    """With the weights that are there now: parity of every rung, and of every stage of it."""
    for parity, miss in compare_graphs(mini, mini / FOLDER, observations=2):
        assert miss is None, f"{STALE} ({miss})"
        assert parity.kept_equal == parity.observations
        assert parity.action_max_abs <= 1e-3


def test_an_engine_is_put_together_once_and_is_whole(mini, cache):
    folder = packaged_engine(mini)
    assert folder.is_relative_to(cache)
    written = (folder / "engine.json").stat().st_mtime_ns
    assert packaged_engine(mini) == folder
    assert (folder / "engine.json").stat().st_mtime_ns == written
    engine = Engine(folder)
    engine.check_policy(weights_sha256(mini))
    assert engine.manifest.parity == [], "nobody compared this one"


def test_weights_trained_again_get_an_engine_of_their_own(mini, copy, cache):
    before = packaged_engine(mini)
    (path,) = copy.glob("proprio_projector*")
    save_file({name: 2 * array for name, array in load_file(path).items()}, path)
    after = packaged_engine(copy)
    assert after != before
    assert read_manifest(after).policy_sha256 == weights_sha256(copy)
    with pytest.raises(EngineError, match=r"other weights of mini .*make graphs"):
        Engine(before).check_policy(weights_sha256(copy))


def test_another_architecture_is_refused_with_the_command(mini, tmp_path):
    write_tiny(tmp_path / "tiny", "oft_discrete_1")
    shutil.copytree(mini / FOLDER, tmp_path / "tiny" / FOLDER)
    with pytest.raises(EngineError, match=r"another architecture .*`make graphs`.*--engine torch"):
        packaged_graphs(tmp_path / "tiny")


def test_a_damaged_set_is_refused(copy, cache):
    graph = copy / FOLDER / "vision.onnx"
    graph.write_bytes(graph.read_bytes()[:-1])
    with pytest.raises(EngineError, match=rf"vision.onnx has .* {GRAPHS} says"):
        packaged_graphs(copy)
    (copy / FOLDER / GRAPHS).write_text("{}")
    with pytest.raises(EngineError, match="is damaged"):
        read_graph_set(copy / FOLDER)


def test_weights_that_lack_a_tensor_are_refused(copy, cache):
    path = copy / "model.safetensors"
    arrays = load_file(path)
    name = next(key for key in arrays if "layers.0.mlp" in key)
    save_file({key: array for key, array in arrays.items() if key != name}, path)
    with pytest.raises(EngineError, match=f"tensor {name} is missing, the graphs"):
        packaged_engine(copy)


def test_arrays_and_tensors_are_the_same(mini):
    arrays, tensors = load_arrays(mini), load_tensors(mini)
    assert arrays.keys() == tensors.keys()
    assert all(np.array_equal(arrays[name], tensors[name].numpy()) for name in arrays)


def test_mini_answers_where_torch_cannot_be_imported(mini, cache):
    """What a rollout does in its workers: an engine for each cell, and a query."""
    code = """
import json, sys
import numpy as np
class Gone:
    def find_spec(self, name, path=None, target=None):
        if name.partition('.')[0] in ('torch', 'onnx', 'onnxscript', 'onnx_ir'):
            raise ModuleNotFoundError(name, name=name)
sys.meta_path.insert(0, Gone())
from leanvla.commands.rollout import Rollout
from leanvla.commands.rollout_engine import with_engines
from leanvla.commands.rollout_plan import make_plan, make_spec
from policy.types import Observation
from sim.rollout.factories import make_policy
config = Rollout(method='vla_pruner', keep='0.25', episodes=1)
plan = make_plan(config)
spec = with_engines(config, plan, make_spec(config))
rng, told = np.random.default_rng(0), []
frames = tuple(rng.integers(0, 255, (96, 96, 3), np.uint8) for _ in range(2))
for cell in plan.cells:
    policy = make_policy(spec.policy, cell, 1)
    state = np.zeros(len(policy.observation_spec.state_names), np.float32)
    seen = Observation(frames, state, 'pick up the red cube')
    timing = policy.infer(seen, policy.initial_state()).timing
    told.append([policy.runs_on, timing.kept_tokens])
print(json.dumps([told, dict(spec.policy.notes), 'torch' in sys.modules]))
"""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=env, check=False
    )
    assert done.returncode == 0, done.stderr
    cells = [["onnxruntime cpu fp32", 288], ["onnxruntime cpu fp32", 72]]
    assert json.loads(done.stdout) == [cells, {}, False]
