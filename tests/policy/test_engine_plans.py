"""Every stage of every rung as a real TensorRT-RTX plan, built without a GPU and looked into.

Split and fused engines, both decodings, half precision as float16 and bfloat16. The variant with a
run-time budget is in tests/engines/test_tensorrt_build.py. No plan is executed here.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import msgspec
import pytest

from engines.manifest import Manifest, read_manifest
from engines.tensorrt.builder import BuildReport, build_plan
from engines.tensorrt.library import TENSORRT_RTX
from engines.tensorrt.options import BuildOptions
from policy.openvla.engine.export import export_policy
from policy.openvla.engine.pruned_plans import unpruned
from tests.policy import tiny

pytest.importorskip(
    "tensorrt_rtx_bindings", reason="TensorRT-RTX is absent: pip install 'leanvla[trt-rtx]'"
)
pytest.importorskip("onnxscript", reason="graphs are exported here: pip install 'leanvla[export]'")

TEXT = replace(
    tiny.TEXT, hidden_size=64, num_hidden_layers=3, num_attention_heads=2, num_key_value_heads=2
)
TOWER = replace(tiny.SIGLIP, width=32, depth=2)  # heads of 16
ENGINES = {
    "oft split fp16": ("oft_l1", (TOWER,), "fp16", "vla_pruner", False),
    "oft fused bf16": ("oft_discrete_1", (TOWER,), "bf16", "vla_pruner", True),
    "autoregressive split bf16": ("single_ar", (TOWER,), "bf16", "fastv", False),
}
OPTIONS = BuildOptions(TENSORRT_RTX, capabilities=("SM89",), optimization_level=0)
KEEP = 0.25


class Built(NamedTuple):
    """An engine, and what is in the plans of its graphs."""

    manifest: Manifest
    reports: dict[str, BuildReport]
    precision: str

    @property
    def contents(self):
        return {name: report.contents for name, report in self.reports.items()}


@pytest.fixture(scope="module", params=sorted(ENGINES))
def built(request, tmp_path_factory):
    kind, towers, precision, method, fused = ENGINES[request.param]
    folder = tmp_path_factory.mktemp("plans")
    tiny.write_tiny(folder / "checkpoint", replace(tiny.CONFIGS[kind], towers=towers, text=TEXT))
    export_policy(
        folder / "checkpoint",
        folder / "engine",
        methods=[method],
        keeps=[KEEP],
        precision=precision,
        prompt_tokens=16,
        fused=fused,
    )
    manifest = read_manifest(folder / "engine")
    reports = {
        name: build_plan(folder / "engine" / graph.file, folder / f"{name}.plan", OPTIONS)
        for name, graph in manifest.graphs.items()
    }
    return Built(manifest, reports, precision)


@pytest.mark.slow
def test_every_stage_of_every_rung_is_a_plan_with_its_own_tensors(built):
    manifest, contents, precision = built.manifest, built.contents, built.precision
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
    manifest, contents = built.manifest, built.contents
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


@pytest.mark.slow
def test_attention_of_one_row_has_no_fused_kernel_and_is_taken_apart_and_counted(built):
    taken_apart = {name for name, report in built.reports.items() if report.decomposed_attention}
    one_row = {name for name in built.reports if name.startswith("decode")}
    assert taken_apart == one_row
