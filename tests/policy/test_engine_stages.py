"""The stages and the numpy runtime against the eager model: every exportable method, every family.

Graphs are left out here: the same modules run on torch, so that the whole matrix takes seconds.
"""

from __future__ import annotations

import re

import numpy as np
import pytest

from policy.openvla.engine.plan import make_plan
from policy.types import ObservationError
from pruning.base import ROW_KINDS
from pruning.history import fresh
from pruning.registry import METHODS, make_method
from tests.policy.engines import ReferencePolicy, eager, observations
from tests.policy.tiny import CONFIGS, write_tiny

VARIANTS = {
    "vla_pruner": (
        "vla_pruner",
        "vla_pruner:release",
        "vla_pruner:warmup=current",
        "vla_pruner:action_source=current:semantic_rows=text",
        "vla_pruner:hold=zero:row_stride=3:action_layer=1",
        "vla_pruner:semantic_rows=last:action_layer=3",
    ),
    "prefill_mean": ("prefill_mean", "prefill_mean:row_stride=3"),
}
EXPORTABLE = [
    variant
    for name, kind in METHODS.items()
    if kind.exportable and not kind.before_decoder
    if kind(keep=1.0).needs <= ROW_KINDS | {"features", "history"}
    for variant in VARIANTS.get(name, (name,))
]


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    for kind in CONFIGS:
        write_tiny(folder / kind, kind)
    return folder


@pytest.mark.parametrize("method", EXPORTABLE)
@pytest.mark.parametrize("kind", CONFIGS)
def test_stages_equal_the_eager_model(checkpoints, kind, method):
    """Actions, kept tokens and memory, over an episode with prompts of three lengths."""
    if (
        CONFIGS[kind].decoding == "autoregressive"
        and "action" in make_method(method, keep=1.0).needs
    ):
        pytest.skip("no action rows at the cut before they are decoded")
    for keep in (1.0,) if method == "dense" else (1.0, 0.5, 0.2):
        policy = eager(checkpoints / kind, method, keep)
        mine = ReferencePolicy(checkpoints / kind, method, keep)
        state = eager_state = fresh()
        for seen in observations(policy.config):
            chunk, eager_state, timing = policy.infer(seen, eager_state)
            answer = mine.run(seen, state)
            state = answer.state
            np.testing.assert_array_equal(answer.kept, np.stack(chunk.kept))
            if chunk.tokens is None:
                np.testing.assert_allclose(answer.values, chunk.normalized, atol=1e-5)
            else:
                np.testing.assert_array_equal(answer.tokens, chunk.tokens.ravel())
            assert answer.dense_warmup == timing.dense_warmup
            assert answer.sequence_tokens == timing.sequence_tokens
            assert answer.kept_sequence_tokens == timing.kept_sequence_tokens
            assert state.queries == eager_state.queries
            for entry, wanted in zip(state.entries, eager_state.entries, strict=True):
                np.testing.assert_allclose(entry, wanted, rtol=1e-3, atol=1e-6)
        if policy.pruner.method.prunes:
            assert mine.runtime.pruner.calls == policy.pruner.calls > 0


@pytest.mark.parametrize("kind", ["single_ar", "oft_l1"])
def test_padding_changes_nothing(checkpoints, kind):
    """The same query in graphs for a prompt just long enough, and for one far longer."""
    policy = eager(checkpoints / kind, "vla_pruner", 0.5)
    seen = observations(policy.config)[0]
    exact = policy.prompt_ids(seen.instruction).shape[1] - 1
    answers = [
        ReferencePolicy(checkpoints / kind, "vla_pruner", 0.5, prompt).run(seen, fresh())
        for prompt in (exact, exact + 1, 3 * exact)
    ]
    for answer in answers[1:]:
        np.testing.assert_array_equal(answer.kept, answers[0].kept)
        if answer.values is not None:
            np.testing.assert_allclose(answer.values, answers[0].values, atol=1e-5)
        else:
            np.testing.assert_array_equal(answer.tokens, answers[0].tokens)
        np.testing.assert_allclose(answer.state.entries[0], answers[0].state.entries[0], rtol=1e-4)


def test_a_longer_prompt_is_refused_with_the_remedy(checkpoints):
    policy = ReferencePolicy(checkpoints / "single_ar", "dense", 1.0, prompt=3)
    seen = observations(policy.policy.config)[0]
    with pytest.raises(ObservationError, match=r"export with --prompt-tokens \d+"):
        policy.run(seen, fresh())


def test_graphs_are_shared_between_rungs():
    """Vision and head once, the full layers once per method, all of it whatever the budgets."""
    plan = make_plan(CONFIGS["oft_l1"], ["prefill_mean", "vla_pruner"], [0.5, 0.25], 32)
    names = list(plan.stages)
    assert len([name for name in names if name.startswith("below")]) == 3
    assert len([name for name in names if name.startswith("select")]) == 6
    assert len(plan.rungs) == 5
    assert plan.rungs[0].method == "dense"


def test_a_method_that_draws_is_refused_with_those_that_can():
    with pytest.raises(ValueError, match=r"random cannot become a graph: choose from .*vla_pruner"):
        make_plan(CONFIGS["single_ar"], ["random"], [0.5], 32)


@pytest.mark.parametrize(
    ("method", "lacks"),
    [
        ("divprune", "a cut before the decoder"),
        ("mmtok", "input text_features, input tower_features"),
        ("visionzip", "input tower_attention"),
        ("smooth+fastv", "memory between selections"),
        ("schedule+prefill_mean", "2 cuts"),
    ],
)
def test_what_the_stages_lack_is_named(method, lacks):
    refusal = f"{re.escape(method)} cannot run on an engine yet.*{lacks}"
    with pytest.raises(ValueError, match=refusal):
        make_plan(CONFIGS["fused_ar"], [method], [0.5], 32)
