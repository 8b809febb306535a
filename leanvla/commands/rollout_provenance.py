"""Weights, assets and packages behind a run's episodes: written down, and one set per folder."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from leanvla.errors import UsageError
from leanvla.run_folder import environment, write_json
from sim.analysis.runs import recorded
from sim.sweep.provenance import SIMULATORS, provenance_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from sim.rollout.worker import WorkerSpec

    Provenance = dict[str, dict[str, Any]]


def settle_provenance(folder: Path, spec: WorkerSpec) -> Provenance:
    """What a run is made of; for a folder with episodes, only what is known of them, too.

    Args:
        folder: the run's, before anything is written into it.
        spec: what the workers are told.

    Raises:
        UsageError: when the folder holds episodes of other weights or assets.
    """
    found = provenance_of(spec)
    if not _has_episodes(folder):
        return found
    before, now = recorded(_read(folder / "env.json")), recorded(found)
    for name, digest in now.items():
        if name not in before:
            _say(f"{folder} does not say of which {name} its episodes are; that stays unknown")
            found = _without(found, name)
        elif before[name] != digest:
            raise UsageError(
                f"{folder} holds episodes of other {name} ({before[name][:12]}, now "
                f"{digest[:12]}): choose another folder with `--out NEW`"
            )
    return found


def write_environment(folder: Path, provenance: Provenance) -> None:
    """Write `env.json`: the machine, and what the run is made of."""
    write_json(folder / "env.json", surroundings(provenance))


def surroundings(provenance: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The machine and what a run is made of; without our simulators where a suite has its own."""
    found = environment()
    if "packages" in provenance.get("suite", {}):
        ours = found["packages"].items()
        found["packages"] = {name: version for name, version in ours if name not in SIMULATORS}
    return {**found, **provenance}


def _has_episodes(folder: Path) -> bool:
    path = folder / "episodes.jsonl"
    return path.is_file() and path.stat().st_size > 0


def _read(path: Path) -> dict[str, Any]:
    """An `env.json`; a damaged one, which a rollout writes anew, tells nothing."""
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return tree if isinstance(tree, dict) else {}


def _without(provenance: Provenance, name: str) -> Provenance:
    return {
        part: {key: value for key, value in facts.items() if key != name}
        for part, facts in provenance.items()
    }


def _say(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)
