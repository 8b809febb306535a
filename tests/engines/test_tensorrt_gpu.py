"""What only a machine with an NVIDIA GPU can show: plans run, and agree with torch."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

from engines.tensorrt.builder import build_plan
from engines.tensorrt.library import TENSORRT, TENSORRT_RTX, has_driver, installed
from engines.tensorrt.options import BuildOptions, ladder_profiles
from engines.tensorrt.session import NOT_EXECUTED, open_plan

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not has_driver(), reason=NOT_EXECUTED),
    pytest.mark.skipif(
        importlib.util.find_spec("cuda") is None, reason="running a plan needs cuda-python"
    ),
]
LIBRARY = TENSORRT if installed(TENSORRT) else TENSORRT_RTX
TOLERANCE = {"float32": 1e-4, "float16": 2e-2, "bfloat16": 1e-1}


@pytest.mark.parametrize("dtype", sorted(TOLERANCE))
def test_a_plan_agrees_with_torch_and_keeps_the_same_tokens(tmp_path, dtype):
    import torch

    from tests.engines.graphs import DTYPES, PrunedPrefill, export

    module = PrunedPrefill(DTYPES[dtype], 0.25).eval()
    with torch.inference_mode():
        hidden, kept = module(module.example())
    plan = tmp_path / "p.plan"
    build_plan(export(tmp_path / "p.onnx", dtype), plan, BuildOptions(LIBRARY))
    x = module.example()
    feed = x.float().numpy()
    if dtype != "float32":
        from engines.tensorrt.types import numpy_type

        feed = feed.astype(numpy_type(dtype))
    with open_plan(plan, library=LIBRARY).session() as session:
        for _ in range(3):  # enqueued, recorded, replayed
            out = session.run({"x": feed})
            np.testing.assert_array_equal(out["kept"], kept.numpy())
            got = out["hidden"].astype(np.float32)
            np.testing.assert_allclose(got, hidden.float().numpy(), atol=TOLERANCE[dtype])


def test_every_rung_of_a_run_time_budget_runs(tmp_path):
    from tests.engines.graphs import DTYPES, AdjustablePrefill, export_adjustable

    plan, rungs = tmp_path / "k.plan", [16, 8, 4]
    options = BuildOptions(LIBRARY, profiles=ladder_profiles("k", rungs))
    build_plan(export_adjustable(tmp_path / "k.onnx"), plan, options)
    engine = open_plan(plan, library=LIBRARY)
    x = AdjustablePrefill(DTYPES["float16"], 0.25).example().numpy()
    for index, rung in enumerate(rungs):
        with engine.session(profile=index, values={"k": rung}) as session:
            out = session.run({"x": x, "k": np.array(rung)})
            assert out["kept"].shape == (2, rung)
