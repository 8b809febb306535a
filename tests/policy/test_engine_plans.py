"""Every stage of every rung as a real TensorRT-RTX plan, built without a GPU and looked into.

Split and fused engines, both decodings, half precision as float16 and bfloat16. The variant with a
run-time budget is in tests/engines/test_tensorrt_build.py. No plan is executed here.
"""

from __future__ import annotations

import msgspec
import pytest

from engines.manifest import read_manifest
from engines.tensorrt.builder import build_plan
from engines.tensorrt.library import TENSORRT_RTX
from engines.tensorrt.options import BuildOptions
from policy.openvla.engine.export import export_policy
from policy.openvla.engine.pruned_plans import unpruned
from tests.policy.tiny import CONFIGS, write_tiny

pytest.importorskip(
    "tensorrt_rtx_bindings", reason="TensorRT-RTX is absent: pip install 'leanvla[trt-rtx]'"
)
pytest.importorskip("onnxscript", reason="graphs are exported here: pip install 'leanvla[export]'")

ENGINES = {
    "oft split fp16": ("oft_l1", "fp16", "vla_pruner", (0.5, 0.25), False),
    "autoregressive split bf16": ("single_ar", "bf16", "fastv", (0.5,), False),
    "oft fused bf16": ("oft_discrete_1", "bf16", "vla_pruner", (0.25,), True),
}
OPTIONS = BuildOptions(TENSORRT_RTX, capabilities=("SM89",), optimization_level=0)


@pytest.fixture(scope="module", params=sorted(ENGINES))
def built(request, tmp_path_factory):
    """An engine's manifest, its plans' contents by graph, and its precision."""
    kind, precision, method, keeps, fused = ENGINES[request.param]
    folder = tmp_path_factory.mktemp("plans")
    write_tiny(folder / "checkpoint", CONFIGS[kind])
    export_policy(
        folder / "checkpoint",
        folder / "engine",
        methods=[method],
        keeps=keeps,
        precision=precision,
        prompt_tokens=16,
        fused=fused,
    )
    manifest = read_manifest(folder / "engine")
    contents = {
        name: build_plan(folder / "engine" / graph.file, folder / f"{name}.plan", OPTIONS).contents
        for name, graph in manifest.graphs.items()
    }
    return manifest, contents, precision


@pytest.mark.slow
def test_every_stage_of_every_rung_is_a_plan_with_its_own_tensors(built):
    manifest, contents, precision = built
    assert set(contents) == {graph for rung in manifest.rungs for graph in rung.stages.values()}
    for name, found in contents.items():
        inputs, outputs = manifest.specs(name)
        for wanted, have in ((inputs, found.inputs), (outputs, found.outputs)):
            assert {t.name: (t.shape, t.dtype) for t in have} == {
                key: (spec.shape, spec.dtype) for key, spec in wanted.items()
            }
        if not name.startswith("select"):
            assert found.types["float16" if precision == "fp16" else "bfloat16"] > 0


@pytest.mark.slow
def test_pruning_is_inside_the_plans_of_every_rung(built):
    manifest, contents, _ = built
    assert len(manifest.rungs) > 1
    assert unpruned(manifest, contents) == {}
    for rung in manifest.rungs[1:]:
        last = contents[rung.stages.get("above") or rung.stages["prefill"]]
        first = contents[manifest.rungs[0].stages.get("above") or "prefill_dense"]
        assert not first.prunes
        assert "kept" not in first.indexed_by
        assert last.prunes or "kept" in last.indexed_by
    # The same rungs on the dense graphs: the check must notice.
    dense = manifest.rungs[0].stages
    wrong = [replace_stages(rung, dense) for rung in manifest.rungs[1:]]
    found = unpruned(replace_rungs(manifest, wrong), contents)
    assert len(found) == len(wrong)


def replace_stages(rung, dense):
    swapped = {role: dense.get(role, graph) for role, graph in rung.stages.items()}
    return msgspec.structs.replace(rung, stages=swapped)


def replace_rungs(manifest, rungs):
    return msgspec.structs.replace(manifest, rungs=rungs)
