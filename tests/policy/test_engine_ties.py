"""Ties and faults: other tokens kept where rounding decides, and anywhere else."""

from __future__ import annotations

from dataclasses import fields, replace

import msgspec
import numpy as np
import pytest
import torch

from engines.manifest import Parity
from policy.openvla.engine.ties import EngineChoice, ModelChoice, are_tied, is_tie
from pruning.example import example_context
from pruning.registry import make_method

N, KEEP = 16, 6


def twins(name, gap):
    """A context in which a kept token of the first group has a twin; the two, and the choice."""
    method, context = make_method(name, keep=KEEP / N), example_context((2, N, 8), KEEP)
    kept = method.select(context).kept[0].tolist()
    worth = method.score(context)[0] if name == "fastv" else torch.arange(N)
    last = min(kept, key=lambda token: float(worth[token]))
    twin = next(token for token in range(N) if token not in kept)
    changed = {}
    for field in fields(context):
        value = getattr(context, field.name)
        if field.name == "attention":
            changed["attention"] = {key: _twin(row, last, twin, gap) for key, row in value.items()}
        elif isinstance(value, torch.Tensor) and value.shape[1:2] == (N,):
            changed[field.name] = _twin(value, last, twin, gap)
    context = replace(context, **changed)
    choice = ModelChoice(context, method.select(context).kept.numpy())
    first, second = last, twin
    if second in choice.kept[0]:
        first, second = second, first
    assert first in choice.kept[0]
    assert second not in choice.kept[0]
    return method, choice, first, second


def _twin(values, token, twin, gap):
    values = values.clone()
    values[0, twin] = values[0, token] * (1 - gap)
    return values


def exchanged(kept, out, new):
    kept = kept.copy()
    kept[0] = np.sort(np.where(kept[0] == out, new, kept[0]))
    return kept


@pytest.mark.parametrize("name", ["fastv", "divprune"])
def test_a_twin_may_be_exchanged_and_no_other_token(name):
    method, choice, token, twin = twins(name, gap=1e-7)
    assert is_tie(method, choice, exchanged(choice.kept, token, twin))
    others = [n for n in range(N) if n not in choice.kept[0] and n != twin]
    for other in others:
        assert not is_tie(method, choice, exchanged(choice.kept, token, other))
    assert not is_tie(method, choice, choice.kept[:, 1:]), "another count is no tie"


def test_a_gap_that_rounding_cannot_close_is_no_tie():
    method, choice, token, twin = twins("fastv", gap=1e-3)
    assert not is_tie(method, choice, exchanged(choice.kept, token, twin))


def test_choices_after_a_tie_must_be_those_of_torch_on_the_same_inputs():
    method, choice, token, twin = twins("fastv", gap=1e-7)
    equal = EngineChoice(choice.kept, True)
    tie = EngineChoice(exchanged(choice.kept, token, twin), False)
    wrong = exchanged(choice.kept, token, next(n for n in range(N) if n not in choice.kept[0]))
    model = [choice, choice, choice]
    for as_torch in (True, False):
        later = EngineChoice(wrong, as_torch)
        assert are_tied(method, [equal, tie, later], model) is as_torch
    assert not are_tied(method, [equal] * 3, model), "the choices agree, so the walk is at fault"
    assert not are_tied(method, [tie], model), "nobody knows which of three choices differs"


def test_a_ledger_from_before_ties_were_told_apart_is_read():
    old = {"method": "fastv", "keep": 0.5, "observations": 2, "kept_equal": 2, "stages": {}}
    old |= {"action_max_abs": 0.0, "first_action_max_abs": 0.0, "tolerance": 1e-3}
    assert msgspec.convert(old, Parity).kept_tied == 0
