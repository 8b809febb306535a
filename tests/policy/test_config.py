"""`config.json`: published files unchanged, our own section, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from policy.openvla.config import load_config, write_config
from policy.openvla.errors import CheckpointError
from policy.openvla.layout import count_parameters, expected_shapes
from policy.openvla.model import OpenVLAModel
from tests.policy.tiny import CONFIGS, SIGLIP

BOUNDS = {"q01": [-1.0] * 6 + [0.0], "q99": [0.5] * 6 + [1.0], "mask": [True] * 6 + [False]}
STEP = "150000_checkpoint.pt"


def published(**changes) -> dict:
    """What `openvla-7b` says, as far as it matters; `text_config` leaves the defaults out."""
    raw = {
        "auto_map": {"AutoConfig": "configuration_prismatic.OpenVLAConfig"},
        "model_type": "openvla",
        "arch_specifier": "no-align+fused-gelu-mlp",
        "vision_backbone_id": "dinosiglip-vit-so-224px",
        "llm_backbone_id": "llama2-7b-pure",
        "use_fused_vision_backbone": None,
        "image_resize_strategy": "resize-naive",
        "image_sizes": [224, 224],
        "timm_model_ids": [
            "vit_large_patch14_reg4_dinov2.lvd142m",
            "vit_so400m_patch14_siglip_224",
        ],
        "timm_override_act_layers": [None, None],
        "text_config": {"model_type": "llama", "pad_token_id": 32000, "vocab_size": 32064},
        "pad_token_id": 32000,
        "pad_to_multiple_of": 64,
        "n_action_bins": 256,
        "norm_stats": {"bridge_orig": {"action": BOUNDS}, "fractal": {"action": BOUNDS}},
    }
    return raw | changes


def write(folder, **changes):
    (folder / "config.json").write_text(json.dumps(published(**changes)))
    return folder


def fine_tuned(folder, dataset, *sides):
    (folder / "dataset_statistics.json").write_text(json.dumps({dataset: {"action": BOUNDS}}))
    for side in sides:
        (folder / f"{side}--{STEP}").touch()
    return write(folder)


def test_openvla_7b(tmp_path):
    config = load_config(write(tmp_path))
    assert [t.width for t in config.towers] == [1024, 1152]
    assert [t.depth for t in config.towers] == [24, 27]
    assert [t.mean[0] for t in config.towers] == [0.485, 0.5]
    assert config.towers[0].layer_scale
    assert config.towers[0].registers == 4
    assert config.towers[1].attn_pool
    assert config.tokens_per_view == 256
    assert config.action_vocab == 32000
    assert (config.decoding, config.chunk, config.dof) == ("autoregressive", 1, 7)
    assert config.text.num_hidden_layers == 32
    assert config.empty_token_id == 29871
    assert not config.centre_crop
    assert list(config.norm_stats) == ["bridge_orig", "fractal"]


def test_openvla_7b_shapes_and_parameters(tmp_path):
    config = load_config(write(tmp_path))
    shapes = expected_shapes(config)
    assert shapes["vision_backbone.featurizer.reg_token"] == (1, 4, 1024)
    assert shapes["vision_backbone.fused_featurizer.pos_embed"] == (1, 256, 1152)
    assert shapes["vision_backbone.fused_featurizer.blocks.26.mlp.fc1.weight"] == (4304, 1152)
    assert shapes["projector.fc1.weight"] == (8704, 2176)
    assert shapes["language_model.lm_head.weight"] == (32064, 4096)
    # 7,541,237,184 is what the published index adds up to (15,082,474,368 bytes in bfloat16).
    assert sum(count_parameters(config).values()) == 7_541_237_184


@pytest.mark.parametrize(
    ("dataset", "chunk", "views", "proprio", "bounds"),
    [
        ("libero_spatial_no_noops", 8, 2, 8, "q99"),
        ("aloha_fold_shirt", 25, 3, 14, "minmax"),
        ("bridge_orig", 5, 1, 7, "q99"),
    ],
)
def test_oft_is_detected(tmp_path, dataset, chunk, views, proprio, bounds):
    folder = fine_tuned(tmp_path, dataset, "proprio_projector", "action_head", "vision_backbone")
    config = load_config(folder)
    assert (config.decoding, config.head) == ("parallel", "l1")
    assert (config.chunk, len(config.views), config.proprio_dim) == (chunk, views, proprio)
    assert config.bounds == bounds
    assert config.film
    assert config.centre_crop
    assert list(config.norm_stats) == [dataset]


@pytest.mark.parametrize(
    ("dataset", "rotation"),
    [
        ("libero_spatial_no_noops", "axis_angle_delta"),
        ("aloha_fold_shirt", "none"),
        ("bridge_orig", "rpy_delta"),
    ],
)
def test_published_actions_say_their_rotation_and_gripper(tmp_path, dataset, rotation):
    config = load_config(fine_tuned(tmp_path, dataset, "proprio_projector"))
    assert (config.rotation, config.gripper) == (rotation, "0 closed, 1 open")


def test_a_section_that_names_actions_says_what_they_mean(tmp_path):
    assert load_config(write(tmp_path)).rotation == "rpy_delta"
    names = [f"a{i}" for i in range(7)]
    ours = load_config(write(tmp_path, leanvla={"action_names": names}))
    assert (ours.rotation, ours.gripper) == ("axis_angle_delta", "-1 open, +1 close")
    said = load_config(write(tmp_path, leanvla={"action_names": names, "gripper": "+1 open"}))
    assert said.gripper == "+1 open"


def test_oft_with_discrete_head(tmp_path):
    config = load_config(fine_tuned(tmp_path, "libero_goal_no_noops", "proprio_projector"))
    assert (config.decoding, config.head, config.film) == ("parallel", "discrete", False)


def test_oft_of_unknown_robot_asks_for_a_section(tmp_path):
    folder = fine_tuned(tmp_path, "my_robot", "action_head")
    with pytest.raises(CheckpointError, match=r"config\.json.*my_robot.*\"leanvla\""):
        load_config(folder)
    write(folder, leanvla={"chunk": 4, "views": ["front"], "proprio_dim": 0, "dof": 7})
    config = load_config(folder)
    assert (config.decoding, config.head, config.chunk) == ("parallel", "l1", 4)


def test_two_steps_of_a_side_file_are_ambiguous(tmp_path):
    folder = fine_tuned(tmp_path, "libero_10", "action_head")
    (folder / "action_head--50000_checkpoint.pt").touch()
    with pytest.raises(CheckpointError, match="several action_head files"):
        load_config(folder)


def test_v01_and_single_tower(tmp_path):
    changes = {
        "vision_backbone_id": "siglip-vit-so400m",
        "llm_backbone_id": "vicuna-v15-7b",
        "image_sizes": [224],
        "timm_model_ids": None,
        "timm_override_act_layers": [None],
    }
    config = load_config(write(tmp_path, **changes))
    assert config.prompt == "v01"
    assert not config.fused
    assert config.towers[0].mlp_width == 4304


@pytest.mark.parametrize("kind", CONFIGS)
def test_written_config_comes_back(tmp_path, kind):
    write_config(CONFIGS[kind], tmp_path)
    assert load_config(tmp_path) == CONFIGS[kind]


@pytest.mark.parametrize("kind", CONFIGS)
def test_parameter_table_is_that_of_the_modules(kind):
    import torch

    with torch.device("meta"):
        model = OpenVLAModel(CONFIGS[kind])
    have = {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}
    assert have == expected_shapes(CONFIGS[kind])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "llava"}, "model_type is 'llava'"),
        ({"timm_model_ids": ["vit_huge", "vit_so400m_patch14_siglip_224"]}, "vit_huge"),
        ({"timm_model_ids": ["vit_so400m_patch14_siglip_224"]}, "2 tower.s. expected"),
        ({"image_sizes": [224, "224"]}, "image_sizes: Expected `int`, got `str`"),
        ({"image_sizes": [224, 384]}, "equally many"),
        ({"timm_override_act_layers": [None, "quick_gelu"]}, "timm_override_act_layers"),
        ({"text_config": {"model_type": "phi"}}, "text_config.model_type is 'phi'"),
        ({"text_config": {"rope_scaling": {"factor": 2}}}, "text_config.rope_scaling"),
        ({"text_config": {"hidden_size": 4095}}, "does not split into 32 heads"),
        ({"text_config": {"vocab_size": "many"}}, r"vocab_size"),
        ({"image_resize_strategy": "stretch"}, "image_resize_strategy"),
        ({"norm_stats": [1]}, "norm_stats"),
        ({"leanvla": {"chonk": 8}}, "leanvla: .*unknown field `chonk`"),
        ({"leanvla": {"chunk": 8}}, "chunk 8 needs decoding 'parallel'"),
        ({"leanvla": {"head": "diffusion"}}, "leanvla: Invalid enum value 'diffusion'"),
        ({"leanvla": {"cut_layer": 32}}, "cut_layer 32 must lie in 1 ... 31"),
        ({"leanvla": {"views": []}}, "views is empty"),
        ({"leanvla": {"towers": [{"timm_id": "x"}]}}, "missing required field `image_size`"),
    ],
)
def test_refused_with_file_and_key(tmp_path, changes, message):
    with pytest.raises(CheckpointError, match=message) as error:
        load_config(write(tmp_path, **changes))
    assert "config.json" in str(error.value)


def test_missing_and_malformed_file(tmp_path):
    with pytest.raises(CheckpointError, match=r"config\.json is missing"):
        load_config(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": ')
    with pytest.raises(CheckpointError, match=r"config\.json is not readable JSON"):
        load_config(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(CheckpointError, match="JSON object is expected"):
        load_config(tmp_path)


def test_diffusion_head_is_refused(tmp_path):
    folder = fine_tuned(tmp_path, "libero_10", "action_head", "noisy_action_projector")
    with pytest.raises(CheckpointError, match="diffusion head is not supported"):
        load_config(folder)


def test_depth_below_two_is_refused(tmp_path):
    config = replace(CONFIGS["single_ar"], towers=(replace(SIGLIP, depth=1),))
    write_config(config, tmp_path)
    with pytest.raises(CheckpointError, match="second-to-last block"):
        load_config(tmp_path)
