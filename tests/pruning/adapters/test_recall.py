"""History from decoded rows, against the matrices of an eager run that hides what was pruned."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from pruning.adapters import prune
from pruning.methods.prefill_mean import PrefillMean
from pruning.methods.vla_pruner import VLAPruner
from tests.pruning.adapters.models import CASES, IMAGE, batch, samples
from tests.pruning.adapters.peer import hidden_from, view_slots
from tests.pruning.adapters.test_peer import left

HOW = {"max_new_tokens": 4, "do_sample": False, "eos_token_id": None}


@pytest.mark.parametrize("name", ["llava", "qwen2_5_vl", "paligemma"])
@pytest.mark.parametrize("layer", [1, 3])
@torch.inference_mode()
def test_entries_are_what_decoded_rows_looked_at(name: str, layer: int) -> None:
    case = CASES[name]
    model, drawn = case.model(), samples(case, 2)
    inputs = batch(case, drawn)
    with prune(model, VLAPruner(keep=0.5, cut=2, action_layer=layer)) as session:
        model.generate(**inputs, **HOW)
        session._recall.turn(same=True)
        states = session._recall.states
    views = view_slots(drawn, inputs, (IMAGE,))
    kept = [[view.tolist() for view in row] for row in session.kept]
    with hidden_from(model, 2, left(views, kept)):
        out = model.generate(
            **inputs, **HOW, output_attentions=True, return_dict_in_generate=True
        ).attentions
    length = inputs["input_ids"].shape[1]
    rows = torch.stack([step[layer].mean(1)[:, -1, :length] for step in out]).mean(0)
    for at, (slots, mine) in enumerate(zip(views, kept, strict=True)):
        for tokens in {len(one) for one in slots}:
            same = [number for number, one in enumerate(slots) if len(one) == tokens]
            entry = states[(at, 0, tokens)].entries[0]
            there = [range(tokens) if layer < 2 else mine[number] for number in same]
            paid = [rows[at][slots[number]][list(t)] for number, t in zip(same, there, strict=True)]
            rest = 1 - sum(float(part.sum()) for part in paid)
            for view, (t, part) in enumerate(zip(there, paid, strict=True)):
                np.testing.assert_allclose(entry[view][list(t)], part / rest, rtol=1e-3, atol=1e-5)
                gone = np.setdiff1d(np.arange(tokens), list(t))
                assert not entry[view][gone].any()


@torch.inference_mode()
def test_history_guides_the_next_frame_of_the_same_question() -> None:
    case = CASES["llava"]
    model = case.model()
    first, other = batch(case, samples(case, 2)), batch(case, samples(case, 2, seed=7))
    with prune(model, PrefillMean(keep=0.25)) as session:
        model(**first)
        semantic = session.kept
    method = VLAPruner(keep=0.25, row_stride=1, action_layer=1)  # where all tokens are seen
    with prune(model, method) as session:
        model.generate(**first, **HOW)
        assert lists(session.kept) == lists(semantic)  # the warm-up: the prompt's attention alone
        model.generate(**first, **HOW)
        assert lists(session.kept) != lists(semantic)
        model.generate(**other, **HOW)
        model.generate(**first, **HOW)
        assert lists(session.kept) == lists(semantic)  # another question came between


@torch.inference_mode()
def test_a_dense_warmup_fills_the_history_first() -> None:
    case = CASES["llava"]
    model = case.model()
    inputs = batch(case, samples(case, 1))
    dense = model.generate(**inputs, **HOW)
    with prune(model, "vla_pruner:release", keep=0.25) as session:
        for _ in range(3):
            assert model.generate(**inputs, **HOW).equal(dense)
        assert (session.counts.dense_warmups, session.counts.calls) == (3, 0)
        model.generate(**inputs, **HOW)
    assert (session.counts.dense_warmups, session.counts.prefills) == (3, 1)


def lists(kept: Any) -> list:
    return [[view.tolist() for view in row] for row in kept]
