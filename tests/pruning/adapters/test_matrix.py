"""Families x methods: every method prunes every family, or says why it cannot."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from pruning.adapters import AdapterError, prune
from pruning.base import MethodError
from pruning.ladder import rungs
from pruning.registry import METHODS, make_method
from tests.pruning.adapters.models import CASES, batch, samples

NAMES = [
    *(name for name in METHODS if name != "dense"),
    "sparsevlm:paper",
    "prumerge:plus",
    "schedule+prefill_mean",
    "quota+fastv",
    "quota+visionzip",
    "smooth+fastv",
    "reuse+divprune",
    "ladder+fastv",
    "vla_pruner:release",
]
REFUSED = {
    "vla_cache": "needs 'pixels', and keys and values are not reused",
    "oracle": "needs 'output', and the model would have to be asked once per token",
}
LINEAR = ("paligemma", "idefics3", "smolvlm")
PACKED = ("llava_next", "llava_onevision")


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest) -> Any:
    return CASES[request.param]


@pytest.fixture(scope="module")
def model(case: Any) -> Any:
    return case.model()


def reason(case: Any, name: str) -> tuple[type[Exception], str] | None:
    """Why a pairing is refused."""
    if name in REFUSED:
        return AdapterError, REFUSED[name]
    if name == "vla_pruner:release":
        return MethodError, "1 dense ones to fill a history"
    if name == "zoo_prune" and case.name in PACKED:
        return AdapterError, "needs 'project', and features are unpadded"
    if name == "zoo_prune" and case.name in LINEAR:
        return MethodError, "linear projector"
    return None


@pytest.mark.parametrize("name", NAMES)
@torch.inference_mode()
def test_every_method_on_every_family(case: Any, model: Any, name: str) -> None:
    method = make_method(name, keep=0.5)
    drawn = samples(case, 2)
    inputs = batch(case, drawn)
    refused = reason(case, name)
    if refused is not None:
        with pytest.raises(refused[0], match=refused[1]), prune(model, method):
            model(**inputs)
        return
    with prune(model, method) as session:
        logits = model(**inputs).logits
    assert logits.shape[:2] == inputs["input_ids"].shape
    assert logits.isfinite().all()
    assert session.counts.calls > 0
    assert session.counts.prefills == 1
    for one, kept in zip(drawn, session.kept, strict=True):
        check_counts(method, one.views, [len(view) for view in kept])
        assert all((view.diff() > 0).all() for view in kept)
        assert all(
            int(view.max()) < n for view, n in zip(kept, one.views, strict=True) if len(view)
        )


def check_counts(method: Any, views: list[int], kept: list[int]) -> None:
    """Exact counts; a rung for adaptive methods; one sum per size for a split budget."""
    if method.name == "quota":
        assert sum(kept) == sum(method.budget.tokens(n) for n in views)
    elif method.adaptive:
        for n, k in zip(views, kept, strict=True):
            assert k in (0, *rungs(n, method.budget.tokens(n)))
    else:
        last = method.stages(6, True)[-1].keep
        assert kept == [last.tokens(n) for n in views]
