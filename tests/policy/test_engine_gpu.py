"""What only a machine with an NVIDIA GPU can show of engines: plans and providers that run.

`make test-gpu`. On other machines every test here is skipped and says so; nothing of it was
executed by this project yet.
"""

from __future__ import annotations

import importlib.util
import json

import numpy as np
import pytest

from engines.tensorrt.library import TENSORRT, TENSORRT_RTX, has_driver, installed
from engines.tensorrt.session import NOT_EXECUTED
from policy.openvla.engine.export import export_policy
from policy.openvla.engine.policy import EnginePolicy
from pruning.registry import make_method
from tests.policy.engines import eager, observations
from tests.policy.tiny import CONFIGS, write_tiny

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not has_driver(), reason=NOT_EXECUTED),
]
LIBRARY = TENSORRT if installed(TENSORRT) else TENSORRT_RTX
METHOD, KEEP = "vla_pruner", 0.5
needs_cuda_python = pytest.mark.skipif(
    importlib.util.find_spec("cuda") is None, reason="running a plan needs cuda-python"
)


@pytest.fixture(scope="module", params=["oft_discrete_1", "single_ar"])
def checkpoint(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    write_tiny(folder / "checkpoint", CONFIGS[request.param])
    return folder


def export(folder, precision, *, fused):
    out = folder / f"{precision}-{fused}"
    export_policy(
        folder / "checkpoint",
        out,
        methods=[METHOD],
        keeps=[KEEP],
        precision=precision,
        prompt_tokens=24,
        fused=fused,
    )
    return out


def compare(folder, policy, *, exact):
    """An episode with memory: kept tokens, tokens of actions, and what is remembered."""
    model = eager(folder / "checkpoint", METHOD, KEEP)
    state, eager_state = policy.initial_state(), model.initial_state()
    agree = total = 0
    for seen in observations(model.config, 5):
        have, state, _ = policy.infer(seen, state)
        want, eager_state, _ = model.infer(seen, eager_state)
        agree += int((np.stack(have.kept) == np.stack(want.kept)).sum())
        total += np.stack(have.kept).size
        if exact:
            np.testing.assert_allclose(have.normalized, want.normalized, atol=1e-3)
    assert agree == total if exact else agree > 0.9 * total


@needs_cuda_python
@pytest.mark.parametrize("fused", [False, True], ids=["split", "fused"])
@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_plans_of_an_engine_answer_like_the_model(checkpoint, precision, fused):
    from leanvla.cli import main

    folder = export(checkpoint, precision, fused=fused)
    build = ["build", str(folder), "--out", str(folder / "plans"), "--library", LIBRARY]
    assert main(build) == 0
    assert json.loads((folder / "plans" / "plans.json").read_text())["unpruned_rungs"] == {}
    policy = EnginePolicy.from_folder(
        folder,
        method=make_method(METHOD, keep=KEEP),
        unnorm_key=next(iter(CONFIGS["single_ar"].norm_stats)),
        plans=folder / "plans",
    )
    assert policy.runs_on == f"{LIBRARY} {precision}"
    compare(checkpoint, policy, exact=precision == "fp32")
    policy.engine.close()


@pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
def test_providers_of_onnx_runtime_answer_like_the_model(checkpoint, provider):
    import onnxruntime

    from engines.ort import PROVIDERS

    if PROVIDERS[provider] not in onnxruntime.get_available_providers():
        pytest.skip(f"this onnxruntime has no {PROVIDERS[provider]}: pip install onnxruntime-gpu")
    policy = EnginePolicy.from_folder(
        export(checkpoint, "fp32", fused=False),
        method=make_method(METHOD, keep=KEEP),
        unnorm_key=next(iter(CONFIGS["single_ar"].norm_stats)),
        provider=provider,
    )
    assert policy.runs_on == f"onnxruntime {provider} fp32"
    compare(checkpoint, policy, exact=True)
