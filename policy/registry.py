"""Policies by name or folder. Importing this module imports no torch; loading a policy does."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from policy.openvla.errors import PolicyNameError

if TYPE_CHECKING:
    from policy.openvla.policy import OpenVLAPolicy

ZOO = Path(__file__).parent / "zoo"
DEFAULT_POLICY = "mini"


def packaged_policies() -> list[str]:
    """Names of the policies that come with the package."""
    return sorted(path.parent.name for path in ZOO.glob("*/config.json"))


def resolve_policy(name_or_path: str | Path) -> Path:
    """The checkpoint folder of a packaged name (`mini`) or of a path.

    Raises:
        PolicyNameError: for an unknown name, with the known ones and the nearest; for a path that
            is no checkpoint folder, with what is missing.
    """
    name = str(name_or_path)
    if name in packaged_policies():
        return ZOO / name
    folder = Path(name_or_path)
    if (folder / "config.json").is_file():
        return folder
    if folder.is_dir():
        raise PolicyNameError(f"{folder} has no config.json: give a checkpoint folder")
    if folder.is_file():
        raise PolicyNameError(f"{folder} is a file: give the checkpoint folder that holds it")
    known = packaged_policies()
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise PolicyNameError(
        f"unknown policy {name!r}: give a checkpoint folder or one of "
        f"{', '.join(known) or 'none packaged'}{hint}"
    )


def load_policy(
    name_or_path: str | Path,
    *,
    unnorm_key: str | None = None,
    method: str = "dense",
    keep: float | int | None = None,
    threads: int = 1,
    device: str = "cpu",
    dtype: str = "float32",
    **method_fields: Any,
) -> OpenVLAPolicy:
    """Load a policy with a pruning method.

    Args:
        name_or_path: see `resolve_policy`.
        unnorm_key: data set whose statistics give actions their units.
        method: name of a pruning method.
        keep: ratio in (0, 1] or tokens per view; may be left out for `dense`.
        threads: torch threads of this process.
        device: torch device.
        dtype: torch floating-point type of weights and activations.
        **method_fields: further fields of the method, or `compat` for one of its profiles.

    Raises:
        PolicyNameError: on an unknown policy.
        CheckpointError: on a damaged or contradictory checkpoint.
        UnnormKeyError: on an unknown `unnorm_key`.
        MethodError: on an unknown method or field; BudgetError on an impossible `keep`.
        ValueError: on an unknown dtype or a thread count below one.
    """
    folder = resolve_policy(name_or_path)
    if threads < 1:
        raise ValueError(f"threads is {threads}: give at least one")
    from pruning.registry import make_method

    fields = method_fields if keep is None else {"keep": keep, **method_fields}
    chosen = make_method(method, **fields)
    import torch

    kind = getattr(torch, dtype, None)
    if not isinstance(kind, torch.dtype) or not kind.is_floating_point:
        raise ValueError(f"unknown dtype {dtype!r}: choose float32, bfloat16 or float16")
    torch.set_num_threads(threads)
    from policy.openvla.policy import OpenVLAPolicy

    return OpenVLAPolicy.from_folder(
        folder, method=chosen, unnorm_key=unnorm_key, device=device, dtype=kind
    )
