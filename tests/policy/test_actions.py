"""Bins, statistics and gripper conventions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from policy.openvla.actions import (
    Normalizer,
    gripper_to_signed,
    invert_gripper,
    tokens_to_values,
    values_to_tokens,
)
from policy.openvla.errors import CheckpointError, UnnormKeyError
from tests.policy.tiny import CONFIGS, TEXT

CONFIG = CONFIGS["single_ar"]
LLAMA = replace(CONFIG, text=replace(TEXT, vocab_size=32064))
OFT = CONFIGS["oft_l1"]
HALF_BIN = 1 / 255
UNIT = hnp.arrays(np.float64, 7, elements=st.floats(-1, 1))


def test_known_tokens():
    # d = clip(32000 - id - 1, 0, 254), the d-th of 255 centres
    ids = np.array([31999, 31872, 31745, 31744, 31743, 0, 32000, 32063])
    expected = [-254 / 255, 0.0, 254 / 255, 254 / 255, 254 / 255, 254 / 255, -254 / 255, -254 / 255]
    np.testing.assert_allclose(tokens_to_values(ids, LLAMA), expected, atol=1e-7)


def test_known_values():
    ids = values_to_tokens(np.array([-1.0, -5.0, 0.0, 1.0, 7.0]), LLAMA)
    assert ids.tolist() == [31999, 31999, 31872, 31744, 31744]


@given(UNIT)
def test_values_survive_tokens_within_half_a_bin(values):
    ids = values_to_tokens(values, CONFIG)
    assert ((ids >= CONFIG.action_vocab - 256) & (ids < CONFIG.action_vocab)).all()
    assert np.abs(tokens_to_values(ids, CONFIG) - values).max() <= HALF_BIN + 1e-6


def test_every_centre_comes_back_exactly():
    ids = CONFIG.action_vocab - 1 - np.arange(255)
    assert np.array_equal(values_to_tokens(tokens_to_values(ids, CONFIG), CONFIG), ids)


@given(UNIT)
def test_statistics_are_inverse(values):
    normalizer = Normalizer(CONFIG)
    back = normalizer.normalize(normalizer.unnormalize(values))
    np.testing.assert_allclose(back, values, atol=1e-6)


@given(UNIT)
def test_units_survive_the_whole_way_within_half_a_bin(values):
    normalizer = Normalizer(CONFIG)
    stats = CONFIG.norm_stats["tiny_dataset"]["action"]
    physical = normalizer.unnormalize(values)
    tokens = values_to_tokens(normalizer.normalize(physical), CONFIG)
    back = normalizer.unnormalize(tokens_to_values(tokens, CONFIG))
    width = np.where(stats["mask"], np.subtract(stats["q99"], stats["q01"]) / 2, 1.0)
    assert (np.abs(back - physical) <= width * HALF_BIN + 1e-5).all()


def test_unnormalise_known_values():
    rows = np.array([[-1.0] * 7, [0.0] * 7, [1.0] * 7])
    out = Normalizer(CONFIG).unnormalize(rows)
    np.testing.assert_allclose(out[:, 0], [-0.5, -0.05, 0.4], atol=1e-7)
    np.testing.assert_allclose(out[:, 1], [-0.6, 0.0, 0.6], atol=1e-7)
    np.testing.assert_allclose(out[:, 6], [-1, 0, 1])  # mask false: kept
    assert out.dtype == np.float32


def test_oft_adds_its_epsilon_to_the_range():
    tiny = {"q01": [0.0] * 7, "q99": [1e-8] * 7}
    stats = {"d": {"action": tiny, "proprio": {"q01": [0.0] * 5, "q99": [1.0] * 5}}}
    out = Normalizer(replace(OFT, norm_stats=stats)).unnormalize(np.ones(7))
    np.testing.assert_allclose(out, 2e-8, rtol=1e-5)


def test_minmax_bounds():
    bounds = {"q01": [0.0], "q99": [1.0], "min": [-4.0], "max": [6.0]}
    config = replace(
        CONFIG, dof=1, action_names=("x",), bounds="minmax", norm_stats={"d": {"action": bounds}}
    )
    assert Normalizer(config).unnormalize(np.array([0.0])) == 1.0


def test_state_is_normalised_and_clipped():
    normalizer = Normalizer(OFT)
    low = np.array(OFT.norm_stats["tiny_dataset"]["proprio"]["q01"], np.float32)
    high = np.array(OFT.norm_stats["tiny_dataset"]["proprio"]["q99"], np.float32)
    np.testing.assert_allclose(normalizer.normalize_state(low), -1, atol=1e-6)
    np.testing.assert_allclose(normalizer.normalize_state((low + high) / 2), 0, atol=1e-6)
    np.testing.assert_allclose(normalizer.normalize_state(high + 9), 1)


def test_state_of_a_policy_without_proprioception():
    with pytest.raises(CheckpointError, match="reads no proprioception"):
        Normalizer(CONFIG).normalize_state(np.zeros(5, np.float32))


def test_key_may_be_omitted_only_when_there_is_one():
    assert Normalizer(CONFIG).key == "tiny_dataset"
    with pytest.raises(UnnormKeyError, match="unnorm_key is needed, the checkpoint has 2: a, b"):
        Normalizer(CONFIGS["fused_ar"])
    assert Normalizer(CONFIGS["fused_ar"], "b").key == "b"


def test_unknown_key_lists_the_valid_ones_and_the_nearest():
    message = "unknown unnorm_key 'tiny_datset': choose from tiny_dataset; did you mean 'tiny_data"
    with pytest.raises(UnnormKeyError, match=message):
        Normalizer(CONFIG, "tiny_datset")


GOOD = {"q01": [-2.0] * 7, "q99": [2.0] * 7, "min": [-3.0] * 7, "max": [3.0] * 7}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"q01": None}, r"norm_stats\['d'\]\.action\.q01 .*not (a list|finite)|has shape"),
        ({"q01": [-2.0] * 6}, r"action\.q01 has shape \[6\], 7 values expected"),
        ({"q99": [2.0] * 6 + [float("nan")]}, r"action\.q99 is not finite"),
        ({"q99": [2.0] * 3 + [-2.0] + [2.0] * 3}, r"q01 is not below q99 in dimension \[3\]"),
        ({"q01": [-1.0] * 7, "q99": [1.0] * 7}, "-1 and 1 everywhere, which changes nothing"),
        ({"mask": [1] * 7}, r"action\.mask is .* 7 booleans expected"),
        ({"mask": [True]}, r"action\.mask"),
    ],
)
def test_useless_statistics_are_refused(changes, message):
    config = replace(CONFIG, norm_stats={"d": {"action": GOOD | changes}})
    with pytest.raises(CheckpointError, match=message):
        Normalizer(config)


def test_missing_statistics_are_refused():
    with pytest.raises(CheckpointError, match=r"action\.q01 is missing"):
        Normalizer(replace(CONFIG, norm_stats={"d": {"proprio": GOOD}}))
    with pytest.raises(CheckpointError, match=r"proprio\.q01 is missing"):
        Normalizer(replace(OFT, norm_stats={"d": {"action": GOOD}}))


def test_constant_dimensions_are_possible_when_they_say_so():
    still = {name: [*values[:6], 0.5] for name, values in GOOD.items()}
    masked = {"q01": still["q01"], "q99": still["q99"], "mask": [True] * 6 + [False]}
    for action, expected in ((masked, 1.0), (still, 0.5)):
        normalizer = Normalizer(replace(CONFIG, norm_stats={"d": {"action": action}}))
        assert normalizer.unnormalize(np.ones(7))[6] == expected
        assert np.isfinite(normalizer.normalize(np.full(7, 0.5))).all()


def test_gripper_conventions():
    actions = np.array([[0.3, 0.0], [0.3, 0.2], [0.3, 0.9]], np.float32)
    signed = gripper_to_signed(actions)
    assert signed[:, 1].tolist() == [-1, -1, 1]
    assert invert_gripper(signed)[:, 1].tolist() == [1, 1, -1]
    np.testing.assert_allclose(gripper_to_signed(actions, binarise=False)[:, 1], [-1, -0.6, 0.8])
    assert (actions[:, 0] == signed[:, 0]).all()
    assert actions[2, 1] == np.float32(0.9)  # the input is left alone
