"""Reading and writing `config.json`, and detecting what it does not say.

A published file says nothing of OpenVLA-OFT's heads, cameras and chunks: the side files and the
names of the data sets do. Our own checkpoints say it all in one more section, `leanvla`, whose
entries have the names and meanings of `OpenVLAConfig`'s fields and win over detection.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, Literal

import msgspec
from msgspec import UNSET, UnsetType

from policy.openvla import towers as timm
from policy.openvla.config import OpenVLAConfig, TextConfig, TowerConfig
from policy.openvla.config_check import check_config
from policy.openvla.errors import CheckpointError
from policy.openvla.platforms import (
    EEF_DELTA_ACTION,
    EEF_DELTA_ROTATION,
    GRIPPER,
    Platform,
    platform_of,
)
from policy.openvla.side_files import side_files

LLAMA2_EMPTY_TOKEN = 29871
DEFAULT_DOF = 7

# What Hugging Face leaves out of `text_config` because it equals LlamaConfig's default.
_LLAMA_DEFAULTS = {
    "vocab_size": 32064,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
}


class Section(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The optional `leanvla` section: any of these fields of `OpenVLAConfig`."""

    towers: tuple[TowerConfig, ...] | UnsetType = UNSET
    decoding: Literal["autoregressive", "parallel"] | UnsetType = UNSET
    head: Literal["discrete", "l1"] | UnsetType = UNSET
    chunk: int | UnsetType = UNSET
    dof: int | UnsetType = UNSET
    views: tuple[str, ...] | UnsetType = UNSET
    proprio_dim: int | UnsetType = UNSET
    rate_hz: float | UnsetType = UNSET
    centre_crop: bool | UnsetType = UNSET
    eval_resize: bool | UnsetType = UNSET
    bounds: Literal["q99", "minmax"] | UnsetType = UNSET
    prompt: Literal["openvla", "v01"] | UnsetType = UNSET
    empty_token_id: int | UnsetType | None = UNSET
    cut_layer: int | UnsetType | None = UNSET
    execute: int | UnsetType | None = UNSET
    state_names: tuple[str, ...] | UnsetType = UNSET
    action_names: tuple[str, ...] | UnsetType = UNSET
    rotation: str | UnsetType = UNSET
    gripper: str | UnsetType = UNSET


def read_config(folder: str | Path) -> OpenVLAConfig:
    """Resolve the architecture of a checkpoint folder.

    Raises:
        CheckpointError: on a missing or malformed file, an unknown tower or text model, or values
            that contradict each other; the message names file and key.
    """
    folder = Path(folder)
    path = folder / "config.json"
    raw = read_json(path)
    if raw.get("model_type") != "openvla":
        raise CheckpointError(
            f"{path}: model_type is {raw.get('model_type')!r}, this family reads 'openvla'"
        )
    stats = _norm_stats(raw, folder)
    section = _convert(raw.get("leanvla", {}), Section, path, "leanvla")
    said = {
        name: value for name, value in msgspec.structs.asdict(section).items() if value is not UNSET
    }
    fields = _published(raw, path) | _detected(folder, stats, said) | said
    if "towers" not in said:
        film = "vision_backbone" in side_files(folder)
        fields["towers"] = tuple(dataclasses.replace(t, film=film) for t in _towers(raw, path))
    config = _named(OpenVLAConfig(**fields, norm_stats=stats))
    check_config(config, path)
    return config


def write_config_file(config: OpenVLAConfig, folder: str | Path) -> Path:
    """Write `config.json` with a complete `leanvla` section; returns its path."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    section = {name: getattr(config, name) for name in Section.__struct_fields__}
    section["towers"] = [dataclasses.asdict(tower) for tower in config.towers]
    raw = {
        "model_type": "openvla",
        "architectures": ["OpenVLAForActionPrediction"],
        "arch_specifier": config.arch,
        "vision_backbone_id": timm.backbone_id(config.towers),
        "llm_backbone_id": "llama2-7b-pure" if config.prompt == "openvla" else "vicuna-v15-7b",
        "use_fused_vision_backbone": config.fused,
        "image_resize_strategy": config.resize,
        "image_sizes": [tower.image_size for tower in config.towers],
        "timm_model_ids": [tower.timm_id for tower in config.towers],
        "timm_override_act_layers": [None] * len(config.towers),
        "text_config": {"model_type": "llama", **dataclasses.asdict(config.text)},
        "pad_token_id": config.action_vocab,
        "pad_to_multiple_of": config.pad_to_multiple_of,
        "n_action_bins": config.n_action_bins,
        "norm_stats": config.norm_stats,
        "leanvla": section,
    }
    path = folder / "config.json"
    path.write_text(json.dumps(raw, indent=2, default=list) + "\n", encoding="utf-8")
    return path


def read_json(path: Path) -> dict[str, Any]:
    """One JSON object from a file.

    Raises:
        CheckpointError: when the file is missing or does not hold a JSON object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{path} is missing: give a complete checkpoint folder") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} is not readable JSON ({error}): fetch it again") from None
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} holds a {type(value).__name__}, a JSON object is expected")
    return value


def _norm_stats(raw: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Statistics by data set; those of the fine-tuning replace those of the base model."""
    fine_tuned = folder / "dataset_statistics.json"
    path = fine_tuned if fine_tuned.exists() else folder / "config.json"
    stats = read_json(fine_tuned) if fine_tuned.exists() else raw.get("norm_stats") or {}
    return _convert(stats, dict[str, dict[str, Any]], path, "norm_stats")


def _published(raw: dict[str, Any], path: Path) -> dict[str, Any]:
    """The fields that a published file states."""
    vicuna = str(raw.get("llm_backbone_id", "")).startswith("vicuna")
    return {
        "text": _text(raw, path),
        "pad_to_multiple_of": _convert(
            raw.get("pad_to_multiple_of", 64), int, path, "pad_to_multiple_of"
        ),
        "n_action_bins": _convert(raw.get("n_action_bins", 256), int, path, "n_action_bins"),
        "resize": _convert(
            raw.get("image_resize_strategy", "resize-naive"),
            Literal["resize-naive", "letterbox", "resize-crop"],
            path,
            "image_resize_strategy",
        ),
        "arch": str(raw.get("arch_specifier", "")),
        "prompt": "v01" if vicuna else "openvla",
    }


def _detected(folder: Path, stats: dict[str, Any], said: dict[str, Any]) -> dict[str, Any]:
    """What side files and the names of the data sets tell."""
    fine_tuned = (folder / "dataset_statistics.json").exists()
    fields: dict[str, Any] = {
        "dof": said.get("dof", _dof(stats)),
        "empty_token_id": LLAMA2_EMPTY_TOKEN,
        "eval_resize": True,
        "centre_crop": fine_tuned,
    }
    platform, sides = platform_of(stats), side_files(folder)
    if platform is not None:
        fields |= {"views": platform.views[:1], "rate_hz": platform.rate_hz}
    fields |= _meaning(platform, fields["dof"]) if "action_names" not in said else {}
    if sides:
        fields |= _parallel(folder, stats, said)
    if len(fields.get("action_names", ())) != fields["dof"]:
        fields["action_names"] = ()
    return fields


def _meaning(platform: Platform | None, dof: int) -> dict[str, Any]:
    """What published actions mean; whoever names actions in a section says the rest there, too."""
    if platform is not None:
        names, rotation = platform.action_names, platform.rotation
    elif dof == len(EEF_DELTA_ACTION):
        names, rotation = EEF_DELTA_ACTION, EEF_DELTA_ROTATION
    else:
        return {}
    return {"action_names": names, "rotation": rotation, "gripper": GRIPPER}


def _named(config: OpenVLAConfig) -> OpenVLAConfig:
    """Numbered names for values that nothing names, so that specs know how many there are."""
    states = config.state_names or tuple(f"state {i}" for i in range(config.proprio_dim))
    actions = config.action_names or tuple(f"action {i}" for i in range(config.dof))
    return dataclasses.replace(config, state_names=states, action_names=actions)


def _parallel(folder: Path, stats: dict[str, Any], said: dict[str, Any]) -> dict[str, Any]:
    """OpenVLA-OFT: which heads there are, and the constants of the robot they were trained for."""
    sides, platform = side_files(folder), platform_of(stats)
    if "noisy_action_projector" in sides and "head" not in said:
        raise CheckpointError(
            f"{sides['noisy_action_projector']}: the diffusion head is not supported: "
            "give a checkpoint with the L1 or the discrete head"
        )
    head = "l1" if "action_head" in sides else "discrete"
    fields: dict[str, Any] = {"decoding": "parallel", "head": head}
    if platform is None:
        if {"chunk", "views", "proprio_dim"} <= said.keys():
            return fields
        raise CheckpointError(
            f"{folder / 'config.json'}: parallel heads for an unknown robot (data sets: "
            f"{', '.join(stats) or 'none'}): add a section "
            '"leanvla": {"chunk": ..., "views": [...], "proprio_dim": ...}'
        )
    if "proprio_projector" in sides and "proprio_dim" not in said:
        names = platform.state_names
        fields |= {"proprio_dim": len(names), "state_names": names}
    return fields | {"chunk": platform.chunk, "views": platform.views, "bounds": platform.bounds}


def _dof(stats: dict[str, Any]) -> int:
    """Degrees of freedom, from the length of the first data set's statistics."""
    for entry in stats.values():
        low = entry.get("action", {}).get("q01")
        if isinstance(low, list) and low:
            return len(low)
    return DEFAULT_DOF


def _text(raw: dict[str, Any], path: Path) -> TextConfig:
    """`text_config`; what it leaves out is Hugging Face's LlamaConfig default.

    A variant of Llama that would compute something else is refused, not ignored.
    """
    text = dict(raw.get("text_config") or {})
    plain = {
        "model_type": "llama",
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "rope_scaling": None,
        "tie_word_embeddings": False,
    }
    for key, value in plain.items():
        if text.get(key, value) != value:
            raise CheckpointError(
                f"{path}: text_config.{key} is {text[key]!r}, only {value!r} is supported"
            )
    if isinstance(text.get("rope_parameters"), dict):
        text.setdefault("rope_theta", text["rope_parameters"].get("rope_theta", 10000.0))
    text = _LLAMA_DEFAULTS | text
    text.setdefault("num_key_value_heads", text["num_attention_heads"])
    return _convert(text, TextConfig, path, "text_config")


def _towers(raw: dict[str, Any], path: Path) -> tuple[TowerConfig, ...]:
    """The towers by their timm ids, or by the backbone's id when those are left out."""
    backbone = str(raw.get("vision_backbone_id", ""))
    ids, size = timm.BACKBONES.get(backbone, ((), 224))
    ids = _convert(raw.get("timm_model_ids") or ids, tuple[str, ...], path, "timm_model_ids")
    sizes = raw.get("image_sizes") or [size] * len(ids)
    sizes = _convert(sizes, tuple[int, ...], path, "image_sizes")
    fused = raw.get("use_fused_vision_backbone")
    if fused is None:
        fused = backbone.startswith(("dinosiglip", "dinoclip"))
    want = 2 if fused else 1
    if len(ids) != want or len(sizes) != want:
        raise CheckpointError(
            f"{path}: {want} tower(s) expected of vision_backbone_id {backbone!r}, "
            f"timm_model_ids has {len(ids)} and image_sizes {len(sizes)}"
        )
    unknown = [timm_id for timm_id in ids if timm_id not in timm.TOWERS]
    if unknown:
        raise CheckpointError(
            f"{path}: unknown timm_model_ids {unknown}: known are {', '.join(timm.TOWERS)}; "
            'others can be described in a section "leanvla": {"towers": [...]}'
        )
    if any(act is not None for act in raw.get("timm_override_act_layers") or ()):
        raise CheckpointError(f"{path}: timm_override_act_layers: only null (GELU) is supported")
    return tuple(timm.tower(timm_id, size) for timm_id, size in zip(ids, sizes, strict=True))


def _convert(value: object, kind: Any, path: Path, key: str) -> Any:
    """Check and convert a JSON value, saying which file and key were wrong."""
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise CheckpointError(f"{path}: {key}: {error}") from None
