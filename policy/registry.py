"""Policies by name or folder. Importing this module imports no torch; an engine never does."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from engines.manifest import check_files, contents_sha256, is_engine, read_manifest
from policy.openvla.errors import PolicyNameError
from pruning.spelling import did_you_mean

if TYPE_CHECKING:
    import torch

    from policy.openvla.engine.policy import EnginePolicy
    from policy.openvla.policy import OpenVLAPolicy

ZOO = Path(__file__).parent / "zoo"
DEFAULT_POLICY = "mini"


def packaged_policies() -> list[str]:
    """Names of the policies that come with the package."""
    return sorted(path.parent.name for path in ZOO.glob("*/config.json"))


def resolve_policy(name_or_path: str | Path) -> Path:
    """The folder of a packaged name (`mini`) or of a path: a checkpoint's, or an engine's.

    Raises:
        PolicyNameError: for an unknown name, with the known ones and the nearest; for a path that
            is no checkpoint or engine folder, with what is missing.
    """
    name = str(name_or_path)
    if name in packaged_policies():
        return ZOO / name
    folder = Path(name_or_path)
    if (folder / "config.json").is_file() or is_engine(folder):
        return folder
    if folder.is_dir():
        raise PolicyNameError(f"{folder} has no config.json: give a checkpoint folder")
    if folder.is_file():
        raise PolicyNameError(f"{folder} is a file: give the checkpoint folder that holds it")
    known = packaged_policies()
    hint = did_you_mean(name, known)
    raise PolicyNameError(
        f"unknown policy {name!r}: give a checkpoint folder or one of "
        f"{', '.join(known) or 'none packaged'}{hint}"
    )


def describing_files(folder: Path) -> Path:
    """Where a folder's `config.json` and tokenizer lie: in an engine, under `policy/`."""
    return folder / "policy" if is_engine(folder) else folder


def engine_sha256(folder: Path, *, check: bool = False) -> str:
    """Hash of everything that runs of an engine, whatever it is called and its ledger says.

    Args:
        folder: the engine's.
        check: compare every file with the manifest, too.

    Raises:
        EngineError: when it cannot be read, or a file is not what the manifest says.
    """
    manifest = read_manifest(folder)
    if check:
        check_files(folder, manifest)
    return contents_sha256(manifest)


def load_policy(
    name_or_path: str | Path,
    *,
    unnorm_key: str | None = None,
    method: str = "dense",
    keep: float | int | None = None,
    threads: int = 1,
    device: str = "cpu",
    dtype: str = "float32",
    plans: str | Path | None = None,
    **method_fields: Any,
) -> OpenVLAPolicy | EnginePolicy:
    """Load a policy with a pruning method; an engine's without torch.

    Args:
        name_or_path: see `resolve_policy`.
        unnorm_key: data set whose statistics give actions their units.
        method: name of a pruning method.
        keep: ratio in (0, 1] or tokens per view; may be left out for `dense`.
        threads: torch threads of this process.
        device: torch device; for an engine `cpu`, `cuda` or `tensorrt`.
        dtype: torch floating-point type of weights and activations; an engine has its own.
        plans: folder of TensorRT plans to run instead of an engine's graphs.
        **method_fields: further fields of the method, or `compat` for one of its profiles.

    Raises:
        PolicyNameError: on an unknown policy.
        CheckpointError: on a damaged or contradictory checkpoint.
        UnnormKeyError: on an unknown `unnorm_key`.
        MethodError: on an unknown method or field; BudgetError on an impossible `keep`.
        EngineError: on a damaged engine, or a method and budget that are no rung of it.
        ValueError: on an unknown dtype or a thread count below one.
    """
    folder = resolve_policy(name_or_path)
    if threads < 1:
        raise ValueError(f"threads is {threads}: give at least one")
    from pruning.registry import make_method

    fields = method_fields if keep is None else {"keep": keep, **method_fields}
    chosen = make_method(method, **fields)
    if is_engine(folder):
        from policy.openvla.engine.policy import EnginePolicy

        if dtype != "float32":
            raise ValueError(f"dtype is {dtype!r}: an engine's precision is fixed when exported")
        given: dict[str, Any] = {"unnorm_key": unnorm_key, "threads": threads, "plans": plans}
        return EnginePolicy.from_folder(folder, method=chosen, provider=device, **given)
    if plans is not None:
        raise ValueError(f"plans belong to an engine, {folder} is a checkpoint: leave them out")
    import torch

    kind = _torch_type(dtype)
    torch.set_num_threads(threads)
    from policy.openvla.policy import OpenVLAPolicy

    return OpenVLAPolicy.from_folder(
        folder, method=chosen, unnorm_key=unnorm_key, device=device, dtype=kind
    )


def _torch_type(name: str) -> torch.dtype:
    import torch

    kind = getattr(torch, name, None)
    if not isinstance(kind, torch.dtype) or not kind.is_floating_point:
        raise ValueError(f"unknown dtype {name!r}: choose float32, bfloat16 or float16")
    return kind
