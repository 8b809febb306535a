"""Reading the weights of a checkpoint folder: main shards, side files, strict assignment.

Tensors stay memory-mapped until they are used or converted, so a shard is never in memory twice.
Nothing in a checkpoint is executed: `.pt` files are read as plain tensors only.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from policy.openvla.checkpoint_keys import canonical, is_film, merge_lora
from policy.openvla.checkpoint_save import INDEX, SINGLE, save_checkpoint, weights_sha256
from policy.openvla.config_file import read_json
from policy.openvla.errors import CheckpointError
from policy.openvla.side_files import side_files

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import numpy as np
    import torch
    from torch import Tensor, nn

__all__ = [
    "assign",
    "load_arrays",
    "load_tensors",
    "loaded_files",
    "save_checkpoint",
    "weights_sha256",
]

DESCRIBING = ("config.json", "dataset_statistics.json", "tokenizer.json")

_SHOWN = 3


def load_tensors(folder: str | Path, *, dtype: torch.dtype | None = None) -> dict[str, Tensor]:
    """All tensors of a checkpoint under their canonical names.

    Args:
        folder: published layout: `model.safetensors`, or shards with their index, and side files.
        dtype: converts floating-point tensors one by one; None keeps the stored type.

    Raises:
        CheckpointError: on a missing shard, a truncated or foreign file, or an index that names a
            tensor which its shard lacks.
    """
    folder = Path(folder)
    sides = side_files(folder)
    tensors: dict[str, Tensor] = {}
    for path, keys in _shards(folder):
        for key, tensor in _read_safetensors(path, keys):
            name = canonical(key)
            if "vision_backbone" in sides and name.startswith("vision_backbone."):
                continue  # the side file holds the fine-tuned towers whole
            tensors[name] = _cast(tensor, dtype)
    for part, path in sides.items():
        found = {canonical(key, part): tensor for key, tensor in _read_side(path)}
        tensors |= {name: _cast(tensor, dtype) for name, tensor in merge_lora(found).items()}
    return tensors


def loaded_files(folder: str | Path) -> list[Path]:
    """Every file that a policy reads of a checkpoint folder: the others change nothing it does.

    Raises:
        CheckpointError: when there are no weights, a shard is missing, or a part is there twice.
    """
    folder = Path(folder)
    weights = [*(path for path, _ in _shards(folder)), *side_files(folder).values()]
    described = (folder / name for name in (*DESCRIBING, INDEX))
    return [*(path for path in described if path.is_file()), *weights]


def load_arrays(folder: str | Path) -> dict[str, np.ndarray]:
    """The same as `load_tensors` as numpy arrays, without torch.

    Raises:
        CheckpointError: as there; also for what numpy cannot hold (bfloat16) or torch alone can
            read (`.pt` files, low-rank factors that are not merged).
    """
    folder = Path(folder)
    sides = side_files(folder)
    arrays: dict[str, np.ndarray] = {}
    for path, keys in _shards(folder):
        for key, array in _read_safetensors(path, keys, "numpy"):
            name = canonical(key)
            if "vision_backbone" not in sides or not name.startswith("vision_backbone."):
                arrays[name] = array
    for part, path in sides.items():
        if path.suffix != ".safetensors":
            raise CheckpointError(f"{path} can be read with torch alone")
        found = {canonical(key, part): a for key, a in _read_safetensors(path, None, "numpy")}
        if any(".lora_" in name for name in found):
            raise CheckpointError(f"{path} has low-rank factors apart: torch must merge them")
        arrays |= found
    return arrays


def assign(module: nn.Module, tensors: Mapping[str, Tensor], folder: str | Path) -> None:
    """Give `module` its parameters; every one must be there, with its shape, and no other.

    The module may live on the meta device: tensors are assigned, not copied.

    Raises:
        CheckpointError: naming the file that should hold a missing tensor, or holds a wrong one.
    """
    folder = Path(folder)
    want = {key: tuple(tensor.shape) for key, tensor in module.state_dict().items()}
    missing = sorted(want.keys() - tensors.keys())
    if missing:
        key = missing[0]
        raise CheckpointError(
            f"{_holder(folder, key)}: tensor {_names(missing)} is missing, shape "
            f"{list(want[key])} expected: config and weights do not belong together"
        )
    unexpected = sorted(tensors.keys() - want.keys())
    if unexpected:
        raise CheckpointError(
            f"{_holder(folder, unexpected[0])}: tensor {_names(unexpected)} is unexpected: "
            "config.json describes a model without it"
        )
    for key, shape in want.items():
        if tuple(tensors[key].shape) != shape:
            raise CheckpointError(
                f"{_holder(folder, key)}: tensor {key} has shape {list(tensors[key].shape)}, "
                f"config.json asks for {list(shape)}"
            )
    module.load_state_dict(dict(tensors), strict=True, assign=True)


def _names(keys: list[str]) -> str:
    more = len(keys) - _SHOWN
    return ", ".join(keys[:_SHOWN]) + (f" (and {more} more)" if more > 0 else "")


def _cast(tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    return tensor if dtype is None or not tensor.is_floating_point() else tensor.to(dtype)


def _shards(folder: Path) -> list[tuple[Path, list[str] | None]]:
    """Weight files, each with the keys that the index promises (None: whatever it holds)."""
    if (folder / INDEX).exists():
        by_file: dict[str, list[str]] = {}
        for key, name in _weight_map(folder).items():
            by_file.setdefault(name, []).append(key)
        absent = sorted(name for name in by_file if not (folder / name).is_file())
        if absent:
            raise CheckpointError(
                f"{folder / absent[0]} is missing, {INDEX} names it: fetch it again"
            )
        return [(folder / name, keys) for name, keys in sorted(by_file.items())]
    if not (folder / SINGLE).is_file():
        raise CheckpointError(f"{folder}: neither {SINGLE} nor {INDEX} is there: no weights")
    return [(folder / SINGLE, None)]


def _weight_map(folder: Path) -> dict[str, str]:
    weight_map = read_json(folder / INDEX).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{folder / INDEX}: weight_map is missing or empty")
    for key, name in weight_map.items():
        if not isinstance(name, str) or Path(name).name != name:
            raise CheckpointError(
                f"{folder / INDEX}: weight_map[{key!r}] is {name!r}, "
                "a file name in the same folder is expected"
            )
    return weight_map


def _read_safetensors(
    path: Path, keys: list[str] | None = None, kind: str = "pt"
) -> Iterator[tuple[str, Any]]:
    """The tensors of a file, one after the other, memory-mapped."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework=kind) as file:
            held = set(file.keys())
            for key in sorted(held) if keys is None else keys:
                if key not in held:
                    raise CheckpointError(f"{path}: tensor {key} is missing, {INDEX} promises it")
                yield key, file.get_tensor(key)
    except TypeError as error:
        raise CheckpointError(f"{path} holds a type that numpy lacks ({error})") from None
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path} is truncated or not safetensors ({error}): fetch it again"
        ) from None


def _read_side(path: Path) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a side file, whichever of its two formats it has."""
    if path.suffix == ".safetensors":
        yield from _read_safetensors(path)
        return
    import pickle

    import torch

    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (RuntimeError, EOFError, OSError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(
            f"{path} is truncated or holds more than tensors ({reason}): fetch it again"
        ) from None
    if not isinstance(state, dict) or not all(torch.is_tensor(t) for t in state.values()):
        raise CheckpointError(f"{path}: a state dict of tensors is expected")
    yield from state.items()


def _holder(folder: Path, key: str) -> Path:
    """The file that holds, or should hold, the tensor of a canonical name."""
    part = key.split(".", 1)[0]
    sides = side_files(folder)
    if part in sides:
        return sides[part]
    if part in ("proprio_projector", "action_head") or is_film(key):
        return folder / f"{part}--*_checkpoint.safetensors"
    if (folder / INDEX).exists():
        names = {canonical(raw): name for raw, name in _weight_map(folder).items()}
        return folder / names.get(key, INDEX)
    return folder / SINGLE
