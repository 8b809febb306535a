from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from policy.openvla.config import TextConfig
from policy.openvla.errors import PolicyNameError
from policy.openvla.macs import query_macs
from policy.openvla.model import OpenVLAModel
from policy.openvla.random_weights import random_network, random_policy
from policy.openvla.shapes import shape, shape_names
from policy.openvla.traffic import BYTES_OF, Cut, cache_bytes, query_stages, weight_bytes
from policy.profiling import PolicyCell, decode_jpeg, encode_jpeg, synthetic_scenes
from policy.types import PHASES, ActionSpec, Inference, ObservationSpec, Timing
from pruning.history import fresh
from pruning.registry import make_method
from tests.policy.tiny import CONFIGS


class Recorder:
    """A policy that keeps what it is shown and tells phases without their places."""

    observation_spec = ObservationSpec(("front", "wrist"), ("x [m]",))
    action_spec = ActionSpec(("a",), 1, 10.0)

    def __init__(self) -> None:
        self.seen = []

    def initial_state(self):
        return fresh()

    def infer(self, observation, state):
        self.seen.append((observation, state))
        timing = Timing(3.0, {"vision": 2.0, "head": 1.0}, dense_warmup=len(self.seen) < 3)
        return Inference(None, replace(state, queries=state.queries + 1), timing)


def test_a_cell_decodes_carries_state_and_moves_time_on():
    policy = Recorder()
    scenes = synthetic_scenes(policy, 32, count=3)
    cell = PolicyCell(policy, scenes, "push it")
    spent = [cell(number) for number in range(4)]
    assert [state.queries for _, state in policy.seen] == [0, 1, 2, 3]
    assert [o.stamp_s for o, _ in policy.seen] == pytest.approx([0.0, 0.1, 0.2, 0.3])
    np.testing.assert_array_equal(policy.seen[0][0].images[1], policy.seen[3][0].images[1])
    assert not np.array_equal(policy.seen[0][0].images[0], policy.seen[1][0].images[0])
    assert [each.warmup for each in spent] == [True, True, False, False]
    names = [name for name, _, _ in spent[0].spans]
    assert names == ["decode_image", "observation", "vision", "head"]
    assert all(b[1] == pytest.approx(a[2]) for a, b in pairwise(spent[0].spans))


def test_made_up_frames_are_the_same_every_time_and_worth_decoding():
    first, again = (synthetic_scenes(Recorder(), 64, seed=3) for _ in range(2))
    assert [s.frames for s in first] == [s.frames for s in again]
    assert first[0].frames != synthetic_scenes(Recorder(), 64, seed=4)[0].frames
    picture = decode_jpeg(first[0].frames[0])
    assert picture.shape == (64, 64, 3)
    assert picture.std() > 20
    near = decode_jpeg(encode_jpeg(picture)).astype(int) - picture
    assert np.abs(near).mean() < 4
    with pytest.raises(ValueError, match="pixels"):
        synthetic_scenes(Recorder(), 4)


def test_the_stopwatch_tells_where_its_phases_lie():
    config = CONFIGS["oft_l1"]
    policy = random_policy(random_network(config), config, make_method("fastv", keep=0.5))
    scenes = synthetic_scenes(policy, 32)
    spans = PolicyCell(policy, scenes, "go")(0).spans
    assert [name for name, _, _ in spans][:4] == [
        "decode_image", "observation", "preprocess", "vision",
    ]  # fmt: skip
    assert {name for name, _, _ in spans[2:]} <= set(PHASES)
    assert all(b[1] == pytest.approx(a[2]) for a, b in pairwise(spans[2:]))


def test_shapes_are_the_published_ones():
    openvla, oft = shape("openvla-7b"), shape("openvla-oft-7b")
    assert (openvla.tokens_per_view, openvla.vision_width) == (256, 2176)
    assert weight_bytes(openvla, "bfloat16") == pytest.approx(2 * 7.54e9, rel=0.005)
    assert (oft.chunk, len(oft.views), oft.proprio_dim, oft.head) == (8, 2, 8, "l1")
    assert shape("openvla-oft-aloha-7b").film
    assert shape("mini").text.hidden_size == 128
    assert shape("mini", layers=3).cut_layer is None


def test_shapes_shorten_only_where_they_are_told_to():
    short = shape("openvla-oft-7b", layers=4, tower_layers=3)
    assert short.text.num_hidden_layers == 4
    assert [tower.depth for tower in short.towers] == [3, 3]
    assert short.text.hidden_size == 4096
    with pytest.raises(ValueError, match="3 to 32"):
        shape("openvla-7b", layers=64)
    with pytest.raises(ValueError, match="2 to 24"):
        shape("openvla-7b", tower_layers=25)
    with pytest.raises(PolicyNameError, match="did you mean 'openvla-7b'"):
        shape("openvla7b")
    assert "openvla-oft-7b" in shape_names()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_random_networks_are_whole_finite_and_repeatable(dtype):
    config = CONFIGS["oft_l1"]
    one, two = (random_network(config, dtype=dtype, seed=5) for _ in range(2))
    for (name, a), (_, b) in zip(one.named_parameters(), two.named_parameters(), strict=True):
        assert a.dtype == dtype
        assert torch.isfinite(a).all(), name
        assert torch.equal(a, b), name
    policy = random_policy(one, config, make_method("fastv", keep=0.25))
    answer = policy.infer(Observed(policy).observation, policy.initial_state())
    assert np.isfinite(answer.chunk.actions).all()
    assert answer.timing.kept_tokens == 2 * 4


class Observed:
    """One observation that a policy can read."""

    def __init__(self, policy) -> None:
        from policy.types import Observation

        scene = synthetic_scenes(policy, 32)[0]
        images = tuple(decode_jpeg(frame) for frame in scene.frames)
        self.observation = Observation(images, scene.state, "pick it up")


@pytest.mark.parametrize("kind", sorted(CONFIGS))
def test_counted_weights_are_the_ones_that_a_query_uses(kind):
    """The parameters that get a gradient are the ones that were read."""
    config = CONFIGS[kind]
    model = random_network(config).requires_grad_(True)
    ids = torch.ones(1, 6, dtype=torch.long)
    views, towers = len(config.views), len(config.towers)
    pixels = torch.randn(1, 3 * towers * views, 32, 32)
    text = model.text(ids)
    proprio = torch.randn(1, config.proprio_dim) if config.proprio_dim else None
    model.sequence(model.see(pixels, text), text, proprio).square().sum().backward()
    used = sum(
        p.numel()
        for name, p in model.named_parameters()
        if p.grad is not None and not name.startswith("language_model.")
    )
    stages = {s.name: s for s in query_stages(config, Cut(1, 16), weight_type="float32")}
    assert stages["vision"].weight_bytes == 4 * used
    layers = sum(p.numel() for p in model.language_model.model.layers.parameters())
    prefill = stages["prefill_below"].weight_bytes + stages["prefill_above"].weight_bytes
    assert prefill == 4 * layers
    head = model.action_head if config.head == "l1" else model.language_model.lm_head
    assert stages["head"].weight_bytes == 4 * sum(p.numel() for p in head.parameters())
    assert weight_bytes(config, "float32") == 4 * sum(p.numel() for p in model.parameters())


def test_stages_count_what_the_macs_count_and_shrink_with_the_budget():
    config = shape("openvla-oft-7b")
    macs = query_macs(config, cut=4, kept_per_view=64, prompt_tokens=20)
    stages = query_stages(config, Cut(4, 64))
    assert sum(stage.macs for stage in stages) == macs.total
    dense = {stage.name: stage for stage in query_stages(config, Cut(4, 256))}
    for stage in stages:
        assert stage.weight_bytes == dense[stage.name].weight_bytes  # tokens go, weights stay
        assert stage.macs <= dense[stage.name].macs
    above = next(stage for stage in stages if stage.name == "prefill_above")
    assert above.macs < 0.5 * dense["prefill_above"].macs


def test_decode_reads_all_weights_at_every_step():
    config = shape("openvla-7b")
    stages = {stage.name: stage for stage in query_stages(config, Cut(3, 64))}
    layers = 32 * 2 * (4 * 4096**2 + 3 * 4096 * 11008 + 2 * 4096)
    head = 2 * 32064 * 4096
    assert stages["decode"].weight_bytes == 6 * (layers + head)
    assert stages["decode"].macs < 0.2 * stages["prefill_above"].macs


def test_the_cache_is_that_of_the_walk():
    from policy.openvla.walk import Walk
    from pruning.types import Selection

    config = CONFIGS["single_ar"]
    model: OpenVLAModel = random_network(config)
    ids = torch.ones(1, 6, dtype=torch.long)
    text = model.text(ids)
    with torch.inference_mode():
        walk = Walk(model, model.layout(ids), None)
        walk.enter(model.sequence(model.see(torch.randn(1, 3, 32, 32), text), text, None))
        walk.through(range(2), probe=1)
        walk.keep_only(Selection(torch.arange(4)[None]))
        walk.through(range(2, 4))
        walk.decode(_Still())
    held = sum(cache.k.numel() + cache.v.numel() for cache in walk.caches)
    assert cache_bytes(config, Cut(2, 4, 6), "float32") == held * 4
    assert cache_bytes(CONFIGS["oft_l1"], Cut(2, 4, 6), "float32") == 0


class _Still:
    def mark(self, phase: str) -> None:
        pass


def test_types_have_the_width_that_torch_gives_them():
    for name in ("float32", "bfloat16", "float16", "int8"):
        assert BYTES_OF[name] == torch.empty(0, dtype=getattr(torch, name)).element_size()
    assert TextConfig(8, 4, 4, 1, 1, 1).head_dim == 4
