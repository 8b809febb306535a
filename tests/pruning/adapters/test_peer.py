"""Every family agrees with the slow implementation, in prefill and decode, padded either side."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from pruning.adapters import prune
from pruning.registry import make_method
from tests.pruning.adapters.models import CASES, IMAGE, VIDEO, batch, samples
from tests.pruning.adapters.peer import best, full_attention, hidden_from, view_slots

CUT, KEEP = 2, 0.25


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest) -> Any:
    return CASES[request.param]


@pytest.fixture(scope="module")
def model(case: Any) -> Any:
    return case.model()


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize(("name", "rows"), [("fastv", "last"), ("prefill_mean", "prefill")])
@torch.inference_mode()
def test_kept_and_logits_agree(case: Any, model: Any, side: str, name: str, rows: str) -> None:
    drawn = samples(case, 3)
    inputs = batch(case, drawn, side)
    real = inputs["attention_mask"].bool()
    views = view_slots(drawn, inputs, (IMAGE, VIDEO))
    with prune(model, make_method(name, keep=KEEP, cut=CUT)) as session:
        ours = model(**inputs).logits
    attention = full_attention(model, inputs, CUT - 1)
    kept = best(attention, real, views, KEEP, rows)
    assert [[view.tolist() for view in sample] for sample in session.kept] == kept
    gone = left(views, kept)
    with hidden_from(model, CUT, gone):
        theirs = model(**inputs, use_cache=False).logits
    lives = real.clone()
    for at, slots in enumerate(gone):
        lives[at, slots] = False
    torch.testing.assert_close(ours[lives], theirs[lives], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["fastv", "divprune"])
@torch.inference_mode()
def test_decode_agrees(case: Any, model: Any, name: str) -> None:
    """Greedy generation on pruned caches, against one that hides keys; cuts at 2 and at 0."""
    drawn = samples(case, 3, seed=1)
    inputs = batch(case, drawn)
    method = make_method(name, keep=KEEP, cut=CUT if name == "fastv" else 0)
    how = {"max_new_tokens": 5, "do_sample": False, "eos_token_id": None}
    how |= {"output_logits": True, "return_dict_in_generate": True}
    with prune(model, method) as session:
        ours = model.generate(**inputs, **how)
    assert session.counts.decode_steps == 4
    kept = [[view.tolist() for view in sample] for sample in session.kept]
    gone = left(view_slots(drawn, inputs, (IMAGE, VIDEO)), kept)
    with hidden_from(model, method.cut, gone):
        theirs = model.generate(**inputs, **how)
    assert ours.sequences.equal(theirs.sequences)
    for mine, other in zip(ours.logits, theirs.logits, strict=True):
        torch.testing.assert_close(mine, other, atol=1e-4, rtol=1e-4)


def left(views: list[list], kept: list[list[list[int]]]) -> list[torch.Tensor]:
    """Slots of every sample that are gone."""
    gone = []
    for mine, chosen in zip(views, kept, strict=True):
        out = [
            slot
            for slots, stays in zip(mine, chosen, strict=True)
            for at, slot in enumerate(slots.tolist())
            if at not in stays
        ]
        gone.append(torch.tensor(out))
    return gone
