"""What an episode depends on, as a document, and the keys made from it."""

from __future__ import annotations

import hashlib
import json
from importlib import metadata
from typing import TYPE_CHECKING, Any

from policy.serve.address import is_address
from sim.rollout.types import EXPERT
from sim.suites.environment import environment_of
from sim.sweep.digests import code_digest, module_digest
from sim.sweep.provenance import SIMULATORS, policy_facts, suite_facts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from sim.rollout.types import Cell, Source
    from sim.rollout.worker import WorkerSpec

SCHEMA = 1
PARTS = ("suite", "policy", "settings", "code", "packages")
PACKAGES = ("numpy", "torch", "onnxruntime", *SIMULATORS)


def identity_of(spec: WorkerSpec, *, swap: bool, parts: Sequence[str] = PARTS) -> dict[str, Any]:
    """Everything that the episodes of a run depend on, besides method, budget and seed.

    ===========  ===================================================================================
    `suite`      its name; render profile and frame size, defaults filled in; SHA-256 of LIBERO's
                 assets, or of the source file of one's own suite; versions of the packages of an
                 environment of its own
    `policy`     SHA-256 of the files that are loaded of it (names and contents; where the folder
                 lies does not count), or of the source file of one's own policy; its options
                 (`unnorm_key`, `device`, `dtype`); of an engine all files but the manifest with its
                 ledger; of a served one its address, which says little
    `settings`   steps executed per chunk, threads, observations per forward pass, swapped
                 instructions, fields of the pruning methods
    `code`       SHA-256 of our own sources that an episode runs through, see `code_digest`
    `packages`   versions of numpy, torch and onnxruntime, and of mujoco and robosuite where the
                 suite runs on ours; without local labels such as `+cpu`
    ===========  ===================================================================================

    Not in it: how many workers run, where, and how long they may be silent. The processor is not in
    it either, although two of them may round differently.

    Args:
        spec: what the workers are told.
        swap: whether instructions are swapped.
        parts: entries to work out; a node of a cluster holds only some of the files.
    """
    makers: dict[str, Callable[[], Any]] = {
        "suite": lambda: _suite(spec.suite),
        "policy": lambda: _policy(spec.policy),
        "settings": lambda: {
            "execute": spec.execute,
            "threads": spec.threads,
            "batch": spec.batch,
            "swap_instruction": swap,
            "method_options": dict(spec.policy.method_options),
        },
        "code": code_digest,
        "packages": lambda: _packages(spec.suite),
    }
    return {name: makers[name]() for name in PARTS if name in parts}


def run_key(identity: Mapping[str, Any]) -> str:
    """SHA-256 of an identity: the address of its run."""
    return hashlib.sha256(_canonical(identity)).hexdigest()


def episode_key(run: str, cell: Cell, seed: int) -> str:
    """SHA-256 of a run's key, a method, a budget and a seed: the address of an episode."""
    return hashlib.sha256(_canonical([run, cell.method, cell.keep, seed])).hexdigest()


def differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    """Where two identities differ, both sides: `policy.weights: 3f2a9c… and 81d0e4…`."""
    left, right = dict(_leaves(a)), dict(_leaves(b))
    names = [name for name in {**left, **right} if left.get(name) != right.get(name)]
    return [f"{name}: {_short(left.get(name))} and {_short(right.get(name))}" for name in names]


def _suite(source: Source) -> dict[str, Any]:
    if ":" in source.name:
        own = {"source": module_digest(source.name)}
        return {"name": source.name, "options": dict(source.options)} | own
    from sim.suites import suite_spec

    profile = suite_spec(source.name, **_profile(source)).render_profile
    options = {**source.options, "render_profile": profile}
    return {"name": source.name, "options": options} | suite_facts(source)


def _profile(source: Source) -> dict[str, Any]:
    return {"render_profile": source.options.get("render_profile")}


def _policy(source: Source) -> dict[str, Any]:
    if source.name == EXPERT or is_address(source.name):
        return {"name": source.name}
    if ":" in source.name:
        own = {"name": source.name, "source": module_digest(source.name)}
        return own | {"options": dict(source.options)}
    return policy_facts(source) | {"options": dict(source.options)}


def _packages(suite: Source) -> dict[str, str]:
    """Ours that take part; those of a suite's own environment stand with the suite."""
    remote = environment_of(suite.name) is not None
    names = [name for name in PACKAGES if not (remote and name in SIMULATORS)]
    return {name: found for name in names if (found := _version(name))}


def _version(package: str) -> str | None:
    try:
        return metadata.version(package).partition("+")[0]
    except metadata.PackageNotFoundError:
        return None


def _canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), default=str).encode()


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _short(value: Any) -> str:
    text = str(value)
    return f"{text[:12]}…" if len(text) == 64 else text
