"""Methods as graphs: exported, run by ONNX Runtime, and compared with their model.

Those whose graphs ship are held in `test_packaged_graphs.py`, all the others here. On real graphs
and at every rung, `leanvla export --method all` does the same.
"""

from __future__ import annotations

import contextlib
import gc
import logging
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from torch.onnx._internal.exporter._registration import ONNXRegistry

from engines.artefact import Engine
from engines.ort import OrtSession
from policy.openvla.checkpoint import save_checkpoint
from policy.openvla.engine import pack
from policy.openvla.engine.export import export_policy
from policy.openvla.engine.plan import exportable_methods, make_plan
from policy.openvla.engine.verify import generated, judge, verify
from policy.openvla.mini_tokenizer import build_mini_tokenizer
from pruning.registry import METHODS
from tests.policy.tiny import CONFIGS, SIGLIP, random_tensors

N, KEEP, TIED = 16, 0.5, "divprune"
# As small as it may be: three cuts need four layers, and what a graph costs is mostly the exporter.
CONFIG = replace(CONFIGS["oft_discrete_1"], towers=(replace(SIGLIP, depth=2),))
EXPORTABLE = [
    name
    for name, kind in METHODS.items()
    if kind.exportable and not kind.adaptive and name != "dense"
]
HERE = [name for name in EXPORTABLE if name not in pack.METHODS]
ORANGE = np.array([230, 120, 20], np.uint8)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A policy that knows no positions in a picture, so that patches of one colour are the same."""
    folder = tmp_path_factory.mktemp("parity")
    tensors = random_tensors(CONFIG)
    for name in [name for name in tensors if name.endswith("pos_embed")]:
        tensors[name] = torch.zeros_like(tensors[name])
    build_mini_tokenizer(folder / "tokenizer")
    files = sorted((folder / "tokenizer").iterdir())
    save_checkpoint(folder / "checkpoint", CONFIG, tensors, files)
    with exporting_fast():
        export_policy(folder / "checkpoint", folder / "engine", methods=[*HERE, TIED], keeps=[KEEP])
    return folder


@contextlib.contextmanager
def exporting_fast():
    """Without half of the time: garbage, records for pytest, a table made for each graph."""
    table = staticmethod(cache(ONNXRegistry.from_torchlib))
    gc.disable()
    logging.disable(logging.INFO)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ONNXRegistry, "from_torchlib", table)
        try:
            yield
        finally:
            logging.disable(logging.NOTSET)
            gc.enable()


def test_all_stands_for_the_exportable_ones_once_each():
    for config in CONFIGS.values():
        assert exportable_methods(config) == EXPORTABLE
    rungs = make_plan(CONFIG, ["all", "fastv"], [1.0, KEEP], 32).rungs
    assert [(rung.method, rung.keep) for rung in rungs] == [
        ("dense", 1.0),
        *((name, KEEP) for name in EXPORTABLE),
    ]


@pytest.mark.parametrize("method", ["dense", *HERE])
def test_an_engine_keeps_and_does_what_its_model_does(folder, method):
    engine = Engine(folder / "engine")
    rungs = [rung for rung in engine.manifest.rungs if rung.method == method]
    (parity,) = verify(engine, folder / "checkpoint", generated(CONFIG, 4), rungs=rungs)
    assert judge(engine, parity) is None
    assert (parity.observations, parity.kept_equal, parity.kept_tied) == (4, 4, 0)
    chosen = [stage for stage in parity.stages if stage.endswith(".kept")]
    assert bool(chosen) is (method != "dense")


class Shifted:
    """A session that chooses otherwise: instead of every kept token the next one of its view."""

    def __init__(self, session):
        self._session = session

    def __getattr__(self, name):
        return getattr(self._session, name)

    def run(self, feeds):
        found = dict(self._session.run(feeds))
        if "kept" in found:
            found["kept"] = np.sort((found["kept"] + 1) % N, axis=1)
        return found


def test_a_graph_that_chooses_among_equals_is_tied_and_any_other_is_at_fault(folder):
    engine = Engine(folder / "engine", lambda path: Shifted(OrtSession(path)))
    rungs = [rung for rung in engine.manifest.rungs if rung.method == TIED]
    noise = generated(CONFIG, 3)
    plain = [replace(seen, images=(np.zeros_like(seen.images[0]) + ORANGE,)) for seen in noise]
    (tied,) = verify(engine, folder / "checkpoint", plain, rungs=rungs)
    assert (tied.kept_equal, tied.kept_tied, judge(engine, tied)) == (0, 3, None)
    assert not any(name.startswith("select") for name in tied.stages), "nothing to compare"
    (fault,) = verify(engine, folder / "checkpoint", noise, rungs=rungs)
    assert (fault.kept_equal, fault.kept_tied) == (0, 0)
    assert f"select_{TIED}_16keep8.kept has cosine" in judge(engine, fault)
    (sound,) = verify(Engine(folder / "engine"), folder / "checkpoint", noise, rungs=rungs)
    assert (sound.kept_equal, sound.kept_tied, judge(engine, sound)) == (3, 0, None)
