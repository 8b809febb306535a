"""What is learnt is what later acts: objective, data, weights against independent formulations."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from policy.openvla.actions import Normalizer, tokens_to_values
from policy.openvla.config import OpenVLAConfig, TextConfig, TowerConfig, load_config
from policy.openvla.runtime import Query, Runtime
from policy.openvla.stopwatch import Stopwatch
from policy.registry import ZOO
from policy.training.data import Sampler, TrainingData
from policy.training.loop import STATE_LAYER, Job, fit, load_weights, take_weights
from policy.training.objective import TrainingNet, pointing, pool_tokens, soft_bins
from policy.training.recipe import Recipe, Stage
from policy.training.resize import TOWER, resize_patches
from policy.training.statistics import norm_stats, normalise_actions, normalise_proprio
from pruning.history import HistoryKey, fresh
from pruning.registry import make_method
from pruning.runtime import Pruner

if TYPE_CHECKING:
    from pathlib import Path

TINY = OpenVLAConfig(
    (TowerConfig("vit_test", 16, 4, 16, 3, 2, 32, film=True),),
    TextConfig(384, 32, 48, 3, 2, 2),
    decoding="parallel",
    chunk=2,
    dof=3,
    views=("a", "b"),
    proprio_dim=4,
)


def make_data(episodes: int = 6, steps: int = 9, seed: int = 0) -> TrainingData:
    rng = np.random.default_rng(seed)
    n = episodes * steps
    proprio = rng.uniform(-1, 1, (n, 4)).astype(np.float32)
    return TrainingData(
        frames=[rng.integers(0, 256, (steps, 2, 16, 16, 3), np.uint8) for _ in range(episodes)],
        proprio=proprio,
        actions=np.sign(proprio[:, :3]) * np.float32(0.5),
        episode=np.repeat(np.arange(episodes), steps),
        prompt=np.repeat(np.arange(episodes) % 2, steps),
        prompts=[[1, 5, 6], [1, 7, 8, 9]],
        points=rng.uniform(0, 1, (n, 2, 2, 2)).astype(np.float32),
        visible=np.ones((n, 2, 2), bool),
        positions=rng.normal(size=(n, 6)).astype(np.float32),
        has_goal=np.ones(n, bool),
        weight=np.ones(n, np.float32),
    )


@pytest.mark.parametrize("decoding", ["parallel", "autoregressive"])
def test_training_forward_predicts_what_the_runtime_decodes(decoding: str) -> None:
    chunk = 2 if decoding == "parallel" else 1
    config = replace(TINY, decoding=decoding, chunk=chunk)
    torch.manual_seed(0)
    net = TrainingNet(config, config.towers[0].grid).eval()
    batch = Sampler(make_data(), batch=1, chunk=chunk, seed=0).draw()
    with torch.inference_mode():
        pixels = net.pixels(torch.from_numpy(batch.frames))
        ids = torch.from_numpy(batch.input_ids)
        proprio = torch.from_numpy(batch.proprio)
        dense = Pruner(make_method("dense", keep=1.0), 3, net.model.causal)
        query = Query(pixels, ids, proprio, HistoryKey(0, "x", (4, 4), ("a", "b")), 0.0)
        decoded = Runtime(net.model, dense).run(query, fresh(), Stopwatch()).tokens
        text = net.model.text(ids)
        visual = net.model.see(pixels, text)
        # Teacher forcing with the decoded tokens must predict these very tokens again.
        values = tokens_to_values(decoded.numpy(), config).reshape(1, chunk, 3)
        hidden = net.decode(visual, text, proprio, torch.from_numpy(values))
        predicted = net.model.language_model.lm_head(hidden)[0].argmax(-1)
    in_range = (decoded >= config.action_vocab - 255) & (decoded < config.action_vocab)
    if decoding == "parallel" or bool(in_range.all()):
        assert torch.equal(predicted, decoded)
    else:  # an untrained head may name a text token, which teacher forcing cannot express
        assert predicted[0] == decoded[0]


def test_soft_bins_equals_a_slow_sum() -> None:
    rng = np.random.default_rng(0)
    logits, target = rng.normal(size=(2, 6, 384)), rng.uniform(-1, 1, (2, 6))
    weights = np.array([1.0, 0.5, 2.0])
    total = 0.0
    for b in range(2):
        for a in range(6):
            z = logits[b, a] - np.log(np.exp(logits[b, a]).sum())
            centre = np.linspace(-1, 1, 256)
            centre = (centre[:-1] + centre[1:]) / 2
            label = np.exp(-0.5 * ((centre - target[b, a]) / (3 * 2 / 255)) ** 2)
            label /= label.sum()
            cost = -sum(label[d] * z[320 - 1 - d] for d in range(255))
            total += cost * weights[a % 3] / weights.mean() / 12
    got = soft_bins(
        torch.from_numpy(logits), torch.from_numpy(target), 320, 3.0, torch.from_numpy(weights)
    )
    assert got.item() == pytest.approx(total, rel=1e-6)


def test_pointing_counts_visible_points_only() -> None:
    logits = torch.zeros(1, 2, 16, 2)
    logits[0, 0, 6, 0] = 100.0  # row 1, column 2 of a 4 x 4 grid
    points = torch.tensor([[[[0.6, 0.3], [0.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]]]])
    only = torch.tensor([[[True, False], [False, False]]])
    assert pointing(logits, points, only).item() == pytest.approx(0.0, abs=1e-4)
    assert pointing(logits, points, torch.zeros_like(only)).item() == 0.0
    assert pointing(logits, 1 - points, only).item() > 50


def test_pooling_averages_neighbours() -> None:
    tokens = torch.arange(16.0).view(1, 1, 16, 1)
    pooled = pool_tokens(tokens, 2)[0, 0, :, 0]
    assert pooled.tolist() == [2.5, 4.5, 10.5, 12.5]
    assert pool_tokens(tokens, 1) is tokens


def test_a_chunk_never_leaves_its_episode() -> None:
    data = make_data(episodes=5, steps=4)
    data = replace(data, prompt=np.zeros(20, np.int64))
    sampler = Sampler(data, batch=20, chunk=8, seed=0)
    batch = sampler.gather(np.arange(20))
    for step in range(20):
        last = step // 4 * 4 + 3
        for row in range(8):
            np.testing.assert_array_equal(
                batch.actions[step, row], data.actions[min(step + row, last)]
            )
        np.testing.assert_array_equal(batch.frames[step], data.frames[step // 4][step % 4])


def test_batches_hold_one_prompt_length() -> None:
    sampler = Sampler(make_data(), batch=16, chunk=2, seed=3)
    lengths = {sampler.draw().input_ids.shape[1] for _ in range(20)}
    assert lengths == {3, 4}


def test_resizing_patches_keeps_the_response_to_enlarged_pictures() -> None:
    state = {
        TOWER + "patch_embed.proj.weight": torch.randn(8, 3, 8, 8),
        TOWER + "pos_embed": torch.randn(1, 4, 8),
    }
    small = resize_patches(state, 4, 4)
    picture = torch.randn(1, 3, 4, 4)
    enlarged = torch.nn.functional.interpolate(picture, size=8, mode="bilinear")
    before = (state[TOWER + "patch_embed.proj.weight"] * enlarged).sum((1, 2, 3))
    after = (small[TOWER + "patch_embed.proj.weight"] * picture).sum((1, 2, 3))
    assert torch.allclose(before, after, atol=1e-4)
    assert small[TOWER + "pos_embed"].shape == (1, 16, 8)
    same = resize_patches(state, 8, 2)
    assert all(torch.equal(same[name], state[name]) for name in state)


def test_training_normalisation_is_undone_by_the_policys() -> None:
    rng = np.random.default_rng(1)
    states = rng.normal(size=(400, 4)).astype(np.float32)
    actions = rng.normal(size=(400, 3)).astype(np.float32)
    actions[:, 1] = 0.001
    stats = norm_stats(states, actions, 4)
    assert stats["action"]["mask"] == [True, False, False]
    normalizer = Normalizer(replace(TINY, norm_stats={"d": stats}))
    low, high = stats["action"]["q01"][0], stats["action"]["q99"][0]
    inside = np.clip(actions, [low, -9, -1], [high, 9, 1]).astype(np.float32)
    back = normalizer.unnormalize(normalise_actions(inside, stats))
    np.testing.assert_allclose(back, inside, atol=1e-5)
    np.testing.assert_allclose(
        normalise_proprio(states, stats)[0], normalizer.normalize_state(states[0]), atol=1e-5
    )


def test_an_expert_that_commands_all_there_is_leaves_usable_statistics() -> None:
    states = np.random.default_rng(1).normal(size=(400, 4)).astype(np.float32)
    actions = np.tile(np.array([[-1.0], [1.0]], np.float32), (200, 3))
    stats = norm_stats(states, actions, 4)
    assert stats["action"]["mask"] == [False] * 3
    normalizer = Normalizer(replace(TINY, norm_stats={"d": stats}))
    assert np.array_equal(normalise_actions(actions, stats), actions)
    assert np.array_equal(normalizer.unnormalize(actions), actions)


def test_fitting_lowers_the_loss_and_carries_weights_between_stages(tmp_path: Path) -> None:
    stages = (
        Stage(480, 16, patch=8, pool=1, learning_rate=3e-3),
        Stage(3200, 16, patch=4, pool=1, learning_rate=3e-3, final=0.5),
    )
    job = Job(
        TINY, Recipe("tiny", stages, warmup_steps=5, ema=0.9), tmp_path, workers=2, compile=False
    )
    path = fit(job, make_data(), lambda progress: None)
    lines = (tmp_path / "log.jsonl").read_text().splitlines()
    assert len(lines) >= 2
    losses = [json.loads(line)["action"] for line in lines]
    assert losses[-1] < losses[0] - 0.2
    assert losses[-1] < np.log(TINY.text.vocab_size) - 1.5  # well below guessing
    net = TrainingNet(TINY, 4)
    net.load_state_dict(load_file(path))
    assert not (tmp_path / "weights.partial").exists()


def test_training_goes_on_from_a_checkpoint_folder_with_new_heads() -> None:
    folder = ZOO / "mini"
    config, weights = load_config(folder), load_weights(folder)
    net = TrainingNet(config, config.towers[0].grid)
    head = net.pointer.weight.detach().clone()
    take_weights(net, weights)
    state = net.state_dict()
    assert all(state[name].equal(value) for name, value in weights.items())
    assert net.pointer.weight.equal(head)


def test_a_policy_of_another_state_keeps_everything_but_its_state_layer() -> None:
    theirs, net = TrainingNet(TINY, 4), TrainingNet(replace(TINY, proprio_dim=6, dof=5), 4)
    own = net.state_dict()[STATE_LAYER].clone()
    take_weights(net, theirs.state_dict())
    assert torch.equal(net.state_dict()[STATE_LAYER], own)
    name = "model.proprio_projector.fc2.weight"
    assert torch.equal(net.state_dict()[name], theirs.state_dict()[name])


def test_weights_of_another_architecture_are_refused() -> None:
    wider = replace(TINY, text=replace(TINY.text, intermediate_size=64))
    with pytest.raises(ValueError, match="does not fit the recipe's architecture"):
        take_weights(TrainingNet(TINY, 4), TrainingNet(wider, 4).state_dict())
    partial = dict(list(TrainingNet(TINY, 4).state_dict().items())[1:])
    with pytest.raises(ValueError, match="does not fit"):
        take_weights(TrainingNet(TINY, 4), partial)
