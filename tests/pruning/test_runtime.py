from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch

from pruning.base import Method, MethodError
from pruning.history import HistoryError, HistoryKey, fresh
from pruning.registry import make_method
from pruning.runtime import Pruner
from pruning.types import PruneContext, Selection

KEY = HistoryKey(0, "stack the cubes", (5, 6), ("front", "wrist"))
N, KEEP = 30, 6


def queries(pruner: Pruner, count: int, seed: int = 0, key: HistoryKey = KEY) -> list[list]:
    """A stand-in for a policy: attention that depends on nothing but the seed."""
    draw, state, kept_sets = np.random.default_rng(seed), fresh(), []
    for step in range(count):
        scores = torch.from_numpy(draw.random((2, N)).astype(np.float32))
        features = torch.from_numpy(draw.standard_normal((2, N, 8)).astype(np.float32))
        state, guess, dense = pruner.begin(state, key, 0.1 * step)
        kept = np.tile(np.arange(N), (2, 1))
        if not dense:
            history = None if guess is None else torch.from_numpy(guess)
            rows = dict.fromkeys(pruner.rows, scores)
            kept = pruner.select(PruneContext(features, KEEP, rows, history)).kept.numpy()
        state = pruner.finish(state, draw.random(kept.shape) / 100, kept)
        kept_sets.append(kept.tolist())
    return kept_sets


def test_same_inputs_give_bit_identical_sets() -> None:
    runs = [queries(Pruner(make_method("vla_pruner", keep=KEEP), 12, True), 6) for _ in range(2)]
    assert runs[0] == runs[1]


def test_history_changes_what_is_kept() -> None:
    remembering = queries(Pruner(make_method("vla_pruner", keep=KEEP), 12, True), 4)
    forgetful = queries(Pruner(make_method("prefill_mean", keep=KEEP), 12, True), 4)
    assert remembering[0] == forgetful[0]
    assert remembering[2:] != forgetful[2:]


def test_release_runs_dense_for_one_window_then_prunes() -> None:
    pruner = Pruner(make_method("vla_pruner", keep=KEEP, compat="release"), 12, True)
    sizes = [len(kept[0]) for kept in queries(pruner, 5)]
    assert sizes == [N, N, N, KEEP, KEEP]
    assert (pruner.dense_warmup_calls, pruner.calls) == (3, 2)


def test_default_prunes_from_the_first_query() -> None:
    pruner = Pruner(make_method("vla_pruner", keep=KEEP), 12, True)
    assert [len(kept[0]) for kept in queries(pruner, 2)] == [KEEP, KEEP]
    assert pruner.dense_warmup_calls == 0


def test_prove_active_tells_a_pruner_that_never_ran() -> None:
    pruner = Pruner(make_method("vla_pruner", keep=KEEP, compat="release"), 12, True)
    queries(pruner, 3)
    with pytest.raises(MethodError, match=r"never selected a token .3 dense warm-up"):
        pruner.prove_active()
    queries(pruner, 4)
    pruner.prove_active()
    Pruner(make_method("dense"), 12, True).prove_active()


def test_keep_everything_needs_no_memory() -> None:
    pruner = Pruner(make_method("vla_pruner", keep=1.0, compat="release"), 12, True)
    state, guess, dense = pruner.begin(fresh(), KEY, 0.0)
    assert (guess, dense) == (None, False)
    assert pruner.finish(state, None, None).queries == 1


def test_torch_tensors_and_plain_tuples_are_taken() -> None:
    pruner = Pruner(make_method("vla_pruner", keep=KEEP), 12, True)
    kept = torch.arange(KEEP).expand(2, KEEP)
    states = []
    for attention, index in (
        (torch.full((2, KEEP), 0.01), kept),
        (np.full((2, KEEP), 0.01), kept.numpy()),
    ):
        state = pruner.begin(fresh(), tuple(KEY), 0.0).state
        states.append(pruner.finish(state, attention, index))
    assert np.array_equal(states[0].entries[0], states[1].entries[0])
    assert states[0].entries[0].shape == (2, N)


def test_missing_action_attention_is_refused() -> None:
    pruner = Pruner(make_method("vla_pruner", keep=KEEP), 12, True)
    state = pruner.begin(fresh(), KEY, 0.0).state
    with pytest.raises(HistoryError, match="attention of layer 5"):
        pruner.finish(state, None, None)


@pytest.mark.parametrize("fields", [{"action_source": "current"}, {"warmup": "current"}])
def test_action_rows_at_the_cut_need_parallel_decoding(fields: dict) -> None:
    method = make_method("vla_pruner", keep=KEEP, **fields)
    with pytest.raises(MethodError, match="autoregressive"):
        Pruner(method, 12, causal=True)
    assert "action" in Pruner(method, 12, causal=False).rows


@pytest.mark.parametrize("layer", [0, 12])
def test_action_layer_outside_the_pruned_part_is_refused(layer: int) -> None:
    with pytest.raises(MethodError, match="give 1 to 11"):
        Pruner(make_method("vla_pruner", keep=KEEP, action_layer=layer), 12, True)


@dataclass(frozen=True)
class Broken(Method):
    """Breaks one promise."""

    name: ClassVar[str] = "broken"
    answer: tuple[int, ...] = ()

    def select(self, ctx: PruneContext) -> Selection:
        return Selection(torch.tensor([self.answer]))


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ((1, 2), "budget is"),
        ((0, 2, 2), "sorted and unique"),
        ((3, 2, 1), "sorted and unique"),
        ((0, 1, N), "leave a view"),
        ((-1, 0, 1), "leave a view"),
        ((0.0, 1.0, 2.0), "leave a view"),
    ],
)
def test_a_broken_method_is_caught(answer: tuple, message: str) -> None:
    pruner = Pruner(Broken(keep=3, answer=answer), 12, True)
    with pytest.raises(MethodError, match=message):
        pruner.select(PruneContext(torch.randn(1, N, 4), 3))
