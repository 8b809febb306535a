from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pruning.history import (
    HistoryError,
    HistoryKey,
    HistoryRule,
    PrunerState,
    continue_or_reset,
    default_action_layer,
    forecast,
    fresh,
    push,
)

KEY = HistoryKey(3, "push the red cube", (3, 4), ("front", "wrist"))
ALL = np.tile(np.arange(12), (2, 1))


def softmax(logits: np.ndarray) -> np.ndarray:
    p = np.exp(logits - logits.max())
    return p / p.sum()


def state_of(*entries: float) -> PrunerState:
    return PrunerState(tuple(np.full((1, 2), e, np.float32) for e in entries))


def test_nothing_is_forecast_from_nothing() -> None:
    assert forecast(fresh(), 3, 0.8) is None


def test_newest_weighs_most_and_the_window_ends() -> None:
    guess = forecast(state_of(1.0, 10.0, 100.0, 1e6), window=3, gamma=0.8)
    np.testing.assert_allclose(guess, 1.0 + 0.8 * 10.0 + 0.64 * 100.0, rtol=1e-6)
    assert forecast(state_of(1, 0, 0), 3, 0.8)[0, 0] > forecast(state_of(0, 1, 0), 3, 0.8)[0, 0]


def test_push_puts_newest_first_and_forgets_beyond_the_window() -> None:
    state = fresh()
    for value in (0.01, 0.02, 0.03, 0.04):
        attention = np.full((2, 12), value)
        state = push(state, attention, ALL, 12, normalise=False, window=3)
    assert [float(e[0, 0]) for e in state.entries] == pytest.approx([0.04, 0.03, 0.02])
    assert state.queries == 4


@given(st.integers(0, 2**32 - 1))
def test_odds_of_survivors_do_not_depend_on_what_was_pruned(seed: int) -> None:
    """One row, one head, unchanged logits: dense and pruned queries give the same entry."""
    rng = np.random.default_rng(seed)
    logits = rng.standard_normal(24 + 6)  # 2 views x 12 tokens, then 6 non-visual tokens
    kept = np.sort(np.stack([rng.permutation(12)[:4] for _ in range(2)]), -1)
    alive = np.concatenate([kept[0], 12 + kept[1], np.arange(24, 30)])
    dense = push(fresh(), softmax(logits)[:24].reshape(2, 12), ALL, 12).entries[0]
    after = softmax(logits[alive])[:8].reshape(2, 4)
    pruned = push(fresh(), after, kept, 12).entries[0]
    np.testing.assert_allclose(
        np.take_along_axis(pruned, kept, 1), np.take_along_axis(dense, kept, 1), rtol=1e-4
    )


def test_raw_entries_inflate_survivors_and_odds_do_not() -> None:
    logits = np.zeros(12 + 4)
    dense, pruned = softmax(logits)[None, :12], softmax(logits[:7])[None, :3]
    kept = np.array([[0, 1, 2]])
    every = np.arange(12)[None]

    def first(values: np.ndarray, where: np.ndarray, normalise: bool) -> float:
        return float(push(fresh(), values, where, 12, normalise=normalise).entries[0][0, 0])

    assert first(pruned, kept, False) > 2 * first(dense, every, False)
    assert first(pruned, kept, True) == pytest.approx(first(dense, every, True), rel=1e-5)


def test_hold_decides_what_a_pruned_token_is_worth() -> None:
    state = push(fresh(), np.full((1, 4), 0.1), np.arange(4)[None], 4, normalise=False)
    kept, attention = np.array([[1, 3]]), np.full((1, 2), 0.2)
    zero = push(state, attention, kept, 4, "zero", normalise=False).entries[0]
    decay = push(state, attention, kept, 4, "decay", gamma=0.5, normalise=False).entries[0]
    np.testing.assert_allclose(zero, [[0.0, 0.2, 0.0, 0.2]])
    np.testing.assert_allclose(decay, [[0.05, 0.2, 0.05, 0.2]])


def test_zero_hold_starves_a_token_that_was_away_and_decay_does_not() -> None:
    attention = np.array([[0.5, 0.1, 0.02, 0.01]])
    kept = np.array([[1, 2]])
    states = {}
    for hold in ("zero", "decay"):
        state = push(fresh(), attention, np.arange(4)[None], 4, normalise=False)
        for _ in range(3):  # the favourite is pruned for a whole window
            state = push(state, attention[:, 1:3], kept, 4, hold, normalise=False)
        states[hold] = forecast(state, 3, 0.8)[0]
    assert states["zero"][0] == 0.0
    assert states["decay"].argmax() == 0


@pytest.mark.parametrize(
    "key",
    [
        KEY._replace(episode=4),
        KEY._replace(instruction="push the blue cube"),
        KEY._replace(grid=(4, 3)),
        KEY._replace(views=("front",)),
        KEY._replace(views=("wrist", "front")),
    ],
)
def test_any_change_of_key_resets(key: HistoryKey) -> None:
    state = PrunerState((np.ones((2, 12), np.float32),), 9, KEY, 1.0)
    assert continue_or_reset(state, key, 1.1) == PrunerState(key=key, stamp_s=1.1)


@pytest.mark.parametrize(
    ("stamp_s", "kept"), [(1.0, True), (5.9, True), (6.1, False), (0.9, False)]
)
def test_a_gap_or_time_running_backwards_resets(stamp_s: float, kept: bool) -> None:
    state = PrunerState((np.ones((2, 12), np.float32),), 9, KEY, 1.0)
    after = continue_or_reset(state, KEY, stamp_s, max_gap_s=5.0)
    assert bool(after.entries) is kept
    assert after.queries == (9 if kept else 0)
    assert after.stamp_s == stamp_s


def test_a_reset_leaves_nothing_behind() -> None:
    used = push(continue_or_reset(fresh(), KEY, 0.0), np.full((2, 12), 0.01), ALL, 12)
    other = KEY._replace(episode=99)
    after, clean = (continue_or_reset(s, other, 0.1) for s in (used, fresh()))
    assert after == clean
    kept, attention = ALL[:, :5], np.full((2, 5), 0.03)
    a, b = (push(s, attention, kept, 12).entries[0] for s in (after, clean))
    assert a.tobytes() == b.tobytes()


def test_push_is_pure_and_bit_identical() -> None:
    rng = np.random.default_rng(0)
    attention = (rng.random((2, 5)) / 20).astype(np.float32)
    start = push(fresh(), rng.random((2, 12)) / 30, ALL, 12)
    copies = attention.copy(), start.entries[0].copy()
    one, two = (push(start, attention, ALL[:, 2:7], 12) for _ in range(2))
    assert forecast(one, 3, 0.8).tobytes() == forecast(two, 3, 0.8).tobytes()
    assert np.array_equal(attention, copies[0])
    assert np.array_equal(start.entries[0], copies[1])
    assert len(start.entries) == 1
    with pytest.raises(ValueError, match="read-only"):
        one.entries[0][0, 0] = 1.0


def test_views_share_the_non_visual_mass_but_nothing_else() -> None:
    attention = np.full((2, 12), 0.02)
    swapped = attention.copy()
    swapped[1] = swapped[1][::-1] + np.linspace(-0.01, 0.01, 12)  # same total, other view only
    a, b = (push(fresh(), x, ALL, 12).entries[0] for x in (attention, swapped))
    np.testing.assert_allclose(a[0], b[0], rtol=1e-5)


def test_all_mass_on_vision_stays_finite() -> None:
    entry = push(fresh(), np.full((1, 4), 0.25), np.arange(4)[None], 4).entries[0]
    assert np.isfinite(entry).all()


@pytest.mark.parametrize(
    ("attention", "kept", "message"),
    [
        (np.full((2, 3), 0.1), ALL[:, :4], "must both be"),
        (np.full((2, 12), 0.01), ALL + 1, "leave a view of 12"),
        (np.full((2, 12), np.nan), ALL, "not a finite probability"),
        (np.full((2, 12), -0.1), ALL, "not a finite probability"),
    ],
)
def test_bad_entries_are_refused(attention: np.ndarray, kept: np.ndarray, message: str) -> None:
    with pytest.raises(HistoryError, match=message):
        push(fresh(), attention, kept, 12)


@pytest.mark.parametrize("bad", [{"window": 0}, {"gamma": 0.0}, {"gamma": 1.1}, {"hold": "keep"}])
def test_bad_rules_are_refused(bad: dict) -> None:
    with pytest.raises(HistoryError, match=next(iter(bad))):
        replace(HistoryRule(), **bad)


@pytest.mark.parametrize(
    ("layers", "cut", "layer"), [(32, 3, 15), (6, 2, 2), (12, 2, 5), (4, 3, 2), (2, 1, 0)]
)
def test_action_layer_scales_the_released_one(layers: int, cut: int, layer: int) -> None:
    assert default_action_layer(layers, cut) == layer
