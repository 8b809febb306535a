"""What a run is made of and its configuration does not say: weights, assets, a suite's packages."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from policy.serve.address import is_address
from sim.rollout.types import EXPERT
from sim.suites.environment import environment_of
from sim.sweep.digests import files_digest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sim.rollout.types import Source
    from sim.rollout.worker import WorkerSpec

FACTS = {"suite": ("packages", "assets"), "policy": ("weights", "engine")}
SIMULATORS = ("mujoco", "robosuite")
"""Packages of ours that do nothing where a suite runs in an environment of its own."""


def provenance_of(spec: WorkerSpec) -> dict[str, dict[str, Any]]:
    """`suite` and `policy` of a run, each left out where nothing is known of it.

    Raises:
        SuiteEnvironmentError, AssetsError: when what the suite needs is not there.
        CheckpointError, EngineError: when the policy cannot be read.
    """
    found = {"suite": suite_facts(spec.suite), "policy": policy_facts(spec.policy)}
    return {name: facts for name, facts in found.items() if facts}


def provenance_in(identity: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The same, out of the identity of a sweep's run."""
    found: dict[str, dict[str, Any]] = {}
    for part, names in FACTS.items():
        facts = {name: identity[part][name] for name in names if name in identity.get(part, {})}
        found |= {part: facts} if facts else {}
    return found


def suite_facts(source: Source) -> dict[str, Any]:
    """`packages` of a suite's own environment, and the SHA-256 of LIBERO's `assets`.

    Nothing for a suite that runs on our packages.

    Raises:
        SuiteEnvironmentError: when the environment is not installed.
        AssetsError: when the assets are not found.
    """
    environment = environment_of(source.name)
    if environment is None:
        return {}
    found: dict[str, Any] = {"packages": environment.packages()}
    if environment.name == "libero":
        from sim.suites.libero.assets import assets_hash, find_assets

        found["assets"] = assets_hash(find_assets())
    return found


def policy_facts(source: Source) -> dict[str, Any]:
    """SHA-256 of a policy's `weights`, and of each `engine` that runs it instead of torch.

    Of a checkpoint it covers what the loader reads (weights, configuration, statistics, tokenizer),
    of an engine what runs; names and contents, wherever the folder lies. Nothing for an expert, for
    one's own policy and for one that is served.

    Raises:
        PolicyNameError, CheckpointError, EngineError: when the policy cannot be read.
    """
    if source.name == EXPERT or is_address(source.name) or ":" in source.name:
        return {}
    from policy.openvla.checkpoint import loaded_files
    from policy.registry import engine_sha256, is_engine, resolve_policy

    folder = resolve_policy(source.name)
    if is_engine(folder):  # a ledger that is written anew changes no episode
        return {"weights": engine_sha256(folder, check=True)}
    found: dict[str, Any] = {"weights": files_digest(folder, loaded_files(folder))}
    if source.engines:
        folders = sorted({*source.engines.values()})
        found["engine"] = [engine_sha256(Path(engine), check=True) for engine in folders]
    return found
