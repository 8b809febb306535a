"""Weights: the published layout there and back, and every way in which a folder can be broken."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from policy.openvla.checkpoint import assign, load_tensors, save_checkpoint, weights_sha256
from policy.openvla.checkpoint_keys import canonical, film_wrapped
from policy.openvla.config import load_config
from policy.openvla.errors import CheckpointError
from policy.openvla.layout import expected_shapes
from policy.openvla.model import OpenVLAModel
from tests.policy.tiny import CONFIGS, random_tensors, write_tiny

SMALL_SHARD = 60_000
INDEX = "model.safetensors.index.json"
QKV = "language_model.model.layers.1.self_attn.q_proj.weight"


def load(folder, config):
    with torch.device("meta"):
        model = OpenVLAModel(config)
    assign(model, load_tensors(folder), folder)
    return model


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize("shard_bytes", [10**9, SMALL_SHARD])
@pytest.mark.parametrize("kind", CONFIGS)
def test_round_trip(tmp_path, kind, shard_bytes):
    folder = tmp_path / "checkpoint"
    config = write_tiny(folder, kind, shard_bytes=shard_bytes)
    assert (folder / INDEX).exists() == (shard_bytes == SMALL_SHARD)
    assert load_config(folder) == config
    assert same(load_tensors(folder), random_tensors(config))
    assert same(load(folder, config).state_dict(), random_tensors(config))
    assert [path.name for path in tmp_path.iterdir() if "partial" in path.name] == []


def test_dtype_is_converted(tmp_path):
    write_tiny(tmp_path / "c", "single_ar")
    tensors = load_tensors(tmp_path / "c", dtype=torch.bfloat16)
    assert {tensor.dtype for tensor in tensors.values()} == {torch.bfloat16}


def test_oft_file_names_and_key_names(tmp_path):
    write_tiny(tmp_path / "c", "oft_l1", step=70)
    film = load_file(tmp_path / "c" / "vision_backbone--70_checkpoint.safetensors")
    assert "vision_backbone.featurizer.blocks.0.block.attn.qkv.weight" in film
    assert "vision_backbone.featurizer.blocks.0.block.ls1.scale_factor" in film
    assert "vision_backbone.fused_featurizer.blocks.2.scale.weight" in film
    assert "vision_backbone.featurizer.patch_embed.proj.weight" in film
    head = load_file(tmp_path / "c" / "action_head--70_checkpoint.safetensors")
    assert "model.mlp_resnet_blocks.1.ffn.1.weight" in head
    assert "fc1.weight" in load_file(
        tmp_path / "c" / "proprio_projector--70_checkpoint.safetensors"
    )
    main = load_file(tmp_path / "c" / "model.safetensors")
    assert "vision_backbone.featurizer.blocks.0.attn.qkv.weight" in main
    assert not any(".scale." in key or key.startswith("action_head") for key in main)


@pytest.mark.parametrize(
    ("key", "part", "name"),
    [
        ("module.fc1.weight", "proprio_projector", "proprio_projector.fc1.weight"),
        ("module.model.fc1.bias", "action_head", "action_head.model.fc1.bias"),
        (
            "module.vision_backbone.featurizer.blocks.3.block.ls1.gamma",
            "vision_backbone",
            "vision_backbone.featurizer.blocks.3.ls1.scale_factor",
        ),
        (
            "vision_backbone.vision_backbone.fused_featurizer.blocks.11.shift.bias",
            "vision_backbone",
            "vision_backbone.fused_featurizer.blocks.11.shift.bias",
        ),
        (
            "vision_backbone.featurizer.blocks.0.ls2.gamma",
            "",
            "vision_backbone.featurizer.blocks.0.ls2.scale_factor",
        ),
    ],
)
def test_canonical_names(key, part, name):
    assert canonical(key, part) == name


def test_film_names_are_inverse_to_canonical():
    for key in expected_shapes(CONFIGS["oft_l1"]):
        if key.startswith("vision_backbone."):
            assert canonical(film_wrapped(key), "vision_backbone") == key


def test_published_pt_files_with_data_parallel_prefix(tmp_path):
    folder = tmp_path / "c"
    config = write_tiny(folder, "oft_l1")
    for part in ("action_head", "proprio_projector", "vision_backbone"):
        path = folder / f"{part}--0_checkpoint.safetensors"
        state = {f"module.{key}": tensor for key, tensor in load_file(path).items()}
        torch.save(state, path.with_suffix(".pt"))
        path.unlink()
    assert same(load_tensors(folder), random_tensors(config))


def test_unmerged_lora_of_film_towers_is_folded_in(tmp_path):
    folder = tmp_path / "c"
    write_tiny(folder, "oft_l1")
    path = folder / "vision_backbone--0_checkpoint.safetensors"
    state = load_file(path)
    name = "vision_backbone.featurizer.blocks.0.block.attn.qkv"
    weight, bias = state.pop(f"{name}.weight"), state.pop(f"{name}.bias")
    a, b = torch.randn(32, weight.shape[1]), torch.randn(weight.shape[0], 32)
    state |= {f"{name}.base_layer.weight": weight, f"{name}.base_layer.bias": bias}
    state |= {f"{name}.lora_A.default.weight": a, f"{name}.lora_B.default.weight": b}
    save_file(state, path)
    tensors = load_tensors(folder)
    key = "vision_backbone.featurizer.blocks.0.attn.qkv"
    torch.testing.assert_close(tensors[f"{key}.weight"], weight + 0.5 * b @ a)
    assert torch.equal(tensors[f"{key}.bias"], bias)
    assert not any("lora" in key or "base_layer" in key for key in tensors)


def test_pt_with_code_is_refused(tmp_path):
    folder = tmp_path / "c"
    write_tiny(folder, "oft_l1")
    path = folder / "action_head--0_checkpoint.safetensors"
    path.unlink()
    torch.save({"run": print}, path.with_suffix(".pt"))
    with pytest.raises(CheckpointError, match=r"action_head--0_checkpoint\.pt .*more than tensors"):
        load_tensors(folder)


def test_missing_shard_is_named(tmp_path):
    write_tiny(tmp_path / "c", "fused_ar", shard_bytes=SMALL_SHARD)
    shard = sorted((tmp_path / "c").glob("model-00003-of-*"))[0]
    shard.unlink()
    with pytest.raises(CheckpointError, match=rf"{shard.name} is missing, {INDEX} names it"):
        load_tensors(tmp_path / "c")


@pytest.mark.parametrize("part", ["model", "proprio_projector"])
@pytest.mark.parametrize("left", [0.5, 0.0])
def test_truncated_file_is_named(tmp_path, part, left):
    write_tiny(tmp_path / "c", "oft_l1")
    (path,) = (tmp_path / "c").glob(f"{part}*.safetensors")
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * left)])
    with pytest.raises(CheckpointError, match=rf"{path.name} is truncated or not safetensors"):
        load_tensors(tmp_path / "c")


def test_truncated_pt_is_named(tmp_path):
    write_tiny(tmp_path / "c", "oft_l1")
    path = tmp_path / "c" / "action_head--0_checkpoint.pt"
    torch.save({"model.fc1.weight": torch.zeros(4)}, path)
    path.with_suffix(".safetensors").unlink()
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(CheckpointError, match=r"action_head--0_checkpoint\.pt is truncated"):
        load_tensors(tmp_path / "c")


def test_index_that_promises_too_much(tmp_path):
    write_tiny(tmp_path / "c", "single_ar", shard_bytes=SMALL_SHARD)
    path = tmp_path / "c" / INDEX
    index = json.loads(path.read_text())
    first = index["weight_map"][QKV]
    index["weight_map"]["language_model.extra"] = first
    path.write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match=rf"{first}: tensor language_model.extra is missing"):
        load_tensors(tmp_path / "c")


def test_index_that_leaves_the_folder(tmp_path):
    write_tiny(tmp_path / "c", "single_ar", shard_bytes=SMALL_SHARD)
    path = tmp_path / "c" / INDEX
    path.write_text(json.dumps({"weight_map": {QKV: "../other.safetensors"}}))
    with pytest.raises(CheckpointError, match="a file name in the same folder is expected"):
        load_tensors(tmp_path / "c")


def test_no_weights_at_all(tmp_path):
    write_tiny(tmp_path / "c", "single_ar")
    (tmp_path / "c" / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"neither model\.safetensors nor model\.safe"):
        load_tensors(tmp_path / "c")


def rewrite(path, change):
    state = load_file(path)
    change(state)
    save_file(state, path)


def test_missing_key_names_the_file_that_should_hold_it(tmp_path):
    config = write_tiny(tmp_path / "c", "single_ar", shard_bytes=SMALL_SHARD)
    index = json.loads((tmp_path / "c" / INDEX).read_text())
    holder = index["weight_map"].pop(QKV)
    (tmp_path / "c" / INDEX).write_text(json.dumps(index))
    rewrite(tmp_path / "c" / holder, lambda state: state.pop(QKV))
    with pytest.raises(CheckpointError, match=rf"{INDEX}: tensor {QKV} is missing"):
        load(tmp_path / "c", config)


@pytest.mark.parametrize(
    ("kind", "pattern", "key"),
    [
        ("single_ar", "model.safetensors", QKV),
        ("oft_l1", "action_head--*.safetensors", "model.fc2.bias"),
        (
            "oft_l1",
            "vision_backbone--*.safetensors",
            "vision_backbone.featurizer.blocks.1.scale.weight",
        ),
    ],
)
def test_wrong_key_is_named_with_its_file(tmp_path, kind, pattern, key):
    config = write_tiny(tmp_path / "c", kind)
    (path,) = (tmp_path / "c").glob(pattern)
    rewrite(path, lambda state: state.update({f"{key}_": state.pop(key)}))
    with pytest.raises(CheckpointError, match=rf"{path.name}: tensor \S*{key} is missing"):
        load(tmp_path / "c", config)


def test_missing_side_file_is_named(tmp_path):
    config = write_tiny(tmp_path / "c", "oft_l1")
    for path in (tmp_path / "c").glob("vision_backbone--*"):
        path.unlink()
    with pytest.raises(CheckpointError, match=r"vision_backbone--\*_checkpoint.* is missing"):
        load(tmp_path / "c", config)


def test_unexpected_key(tmp_path):
    config = write_tiny(tmp_path / "c", "single_ar")
    extra = {"projector.fc3.bias": torch.zeros(32)}
    rewrite(tmp_path / "c" / "model.safetensors", lambda state: state.update(extra))
    message = r"model\.safetensors: tensor projector\.fc3\.bias is unexpected"
    with pytest.raises(CheckpointError, match=message):
        load(tmp_path / "c", config)


def test_wrong_shape(tmp_path):
    config = write_tiny(tmp_path / "c", "single_ar")
    small = {QKV: torch.zeros(32, 16)}
    rewrite(tmp_path / "c" / "model.safetensors", lambda state: state.update(small))
    message = rf"model\.safetensors: tensor {QKV} has shape \[32, 16\], .* \[32, 32\]"
    with pytest.raises(CheckpointError, match=message):
        load(tmp_path / "c", config)


def test_timm_gamma_is_accepted(tmp_path):
    config = write_tiny(tmp_path / "c", "fused_ar")

    def rename(state):
        for key in [key for key in state if key.endswith("scale_factor")]:
            state[key.replace("scale_factor", "gamma")] = state.pop(key)

    rewrite(tmp_path / "c" / "model.safetensors", rename)
    assert same(load(tmp_path / "c", config).state_dict(), random_tensors(config))


def test_saving_again_leaves_no_stale_weights_and_other_files_alone(tmp_path):
    folder = tmp_path / "c"
    write_tiny(folder, "oft_l1", shard_bytes=SMALL_SHARD)
    (folder / "README.md").write_text("card")
    config = write_tiny(folder, "single_ar")
    assert same(load_tensors(folder), random_tensors(config))
    assert not list(folder.glob("*--*")) + list(folder.glob("model-*"))
    assert (folder / "README.md").read_text() == "card"


def test_failed_save_leaves_the_old_checkpoint(tmp_path):
    folder = tmp_path / "c"
    config = write_tiny(folder, "single_ar")
    before = weights_sha256(folder)
    with pytest.raises(FileNotFoundError):
        save_checkpoint(folder, config, random_tensors(config, seed=1), [tmp_path / "nowhere"])
    assert weights_sha256(folder) == before
    assert [path.name for path in tmp_path.iterdir() if "partial" in path.name] == []


def test_hash_changes_with_one_bit(tmp_path):
    folder = tmp_path / "c"
    write_tiny(folder, "oft_l1")
    before = weights_sha256(folder)
    (path,) = folder.glob("action_head--*")
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert weights_sha256(folder) != before
