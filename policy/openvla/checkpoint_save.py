"""Writing a checkpoint folder in the published layout, all of it or nothing."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from policy.openvla.checkpoint_keys import film_wrapped, is_film
from policy.openvla.config import write_config
from policy.publish import publish

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from torch import Tensor

    from policy.openvla.config import OpenVLAConfig

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
_WEIGHTS = ("model*.safetensors", INDEX, "*--*_checkpoint.*")
_CHUNK_BYTES = 1 << 20


def save_checkpoint(
    folder: str | Path,
    config: OpenVLAConfig,
    tensors: Mapping[str, Tensor],
    tokenizer_files: Iterable[str | Path] = (),
    *,
    step: int = 0,
    shard_bytes: int = 5_000_000_000,
) -> Path:
    """Write config, weights, side files and tokenizer; the folder never holds half of them.

    FiLM towers go whole into `vision_backbone--{step}_checkpoint.safetensors` under the names of
    OpenVLA-OFT's wrapper; the main weights keep the same towers without FiLM's layers, so the
    folder stays a complete base model as well.

    Args:
        folder: where to; weights of an earlier checkpoint in it are replaced, other files stay.
        config: written as `config.json`.
        tensors: by canonical name.
        tokenizer_files: copied as they are.
        step: training step in the names of side files.
        shard_bytes: weights beyond this size are split, with an index.

    Returns:
        The folder.
    """
    folder = Path(folder)
    staging = folder.parent / f".{folder.name}.partial-{os.getpid()}"
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    try:
        for file in tokenizer_files:
            shutil.copyfile(file, staging / Path(file).name)
        _write_main(staging, tensors, shard_bytes)
        for part, state in _sides(config, tensors).items():
            _write(staging / f"{part}--{step}_checkpoint.safetensors", state)
        write_config(config, staging)
        _publish(staging, folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return folder


def weights_sha256(folder: str | Path) -> str:
    """One hash over names and contents of all weight files of a folder."""
    total = hashlib.sha256()
    for path in sorted(_weight_files(Path(folder))):
        digest = hashlib.sha256()
        with path.open("rb") as file:
            while block := file.read(_CHUNK_BYTES):
                digest.update(block)
        total.update(f"{path.name}\0{digest.hexdigest()}\n".encode())
    return total.hexdigest()


def _weight_files(folder: Path) -> set[Path]:
    return {path for pattern in _WEIGHTS for path in folder.glob(pattern)}


def _publish(staging: Path, folder: Path) -> None:
    """Put a complete folder in place by renaming; files that are not weights come along."""
    if not folder.exists():
        staging.rename(folder)
        return
    stale = _weight_files(folder)
    for path in folder.iterdir():
        if path in stale or (staging / path.name).exists():
            continue
        copy = shutil.copytree if path.is_dir() else shutil.copy2
        copy(path, staging / path.name)
    old = staging.with_name(staging.name + "-old")
    folder.rename(old)
    staging.rename(folder)
    shutil.rmtree(old)


def _sides(config: OpenVLAConfig, tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """State dicts of the side files under the names that the published ones use."""
    sides: dict[str, dict[str, Tensor]] = {}
    for part in ("proprio_projector", "action_head"):
        prefix = part + "."
        state = {k.removeprefix(prefix): t for k, t in tensors.items() if k.startswith(prefix)}
        if state:
            sides[part] = state
    if config.film:
        sides["vision_backbone"] = {
            film_wrapped(k): t for k, t in tensors.items() if k.startswith("vision_backbone.")
        }
    return sides


def _write_main(folder: Path, tensors: Mapping[str, Tensor], shard_bytes: int) -> None:
    main = {
        key: tensor
        for key, tensor in tensors.items()
        if not key.startswith(("proprio_projector.", "action_head.")) and not is_film(key)
    }
    shards = _split(main, shard_bytes)
    if len(shards) == 1:
        _write(folder / SINGLE, main)
        return
    weight_map: dict[str, str] = {}
    for i, keys in enumerate(shards, 1):
        name = f"model-{i:05d}-of-{len(shards):05d}.safetensors"
        _write(folder / name, {key: main[key] for key in keys})
        weight_map |= dict.fromkeys(keys, name)
    total = sum(tensor.nbytes for tensor in main.values())
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _split(tensors: Mapping[str, Tensor], shard_bytes: int) -> list[list[str]]:
    """Keys of each shard, filled in order; a tensor above the limit has a shard to itself."""
    shards: list[list[str]] = [[]]
    room = shard_bytes
    for key, tensor in tensors.items():
        if shards[-1] and tensor.nbytes > room:
            shards.append([])
            room = shard_bytes
        shards[-1].append(key)
        room -= tensor.nbytes
    return shards


def _write(path: Path, tensors: Mapping[str, Tensor]) -> None:
    from safetensors.torch import save_file

    plain = {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}
    publish(path, lambda part: save_file(plain, part, metadata={"format": "pt"}))
