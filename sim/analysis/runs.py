"""Run folders as they lie on disk, read and never written."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import yaml

from sim.rollout.store import read_episodes
from sim.rollout.types import RolloutError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from sim.rollout.types import EpisodeRecord

EPISODES = "episodes.jsonl"
# What decides what is measured. Everything else of a configuration is how a run was carried out,
# or which cells and seeds it covers.
DECIDES = (
    *("execute", "swap_instruction", "option", "unnorm_key", "render_profile", "view_size"),
    *("views", "perturb", "engine"),
)
# The same of what a run is made of, by the part of `env.json` that says it.
RECORDED = {"weights": "policy", "assets": "suite"}
UNSET: tuple[object, ...] = (None, False, "", [], ())
SHOWN_DIGITS = 12


class ResultsError(ValueError):
    """Recorded results that cannot be read, joined or compared: what, where, remedy."""


class Setup(NamedTuple):
    """What episodes must have in common to stand in one table.

    Attributes:
        suite: suite of tasks.
        policy: who acted.
        rest: further settings that decide what is measured, where they were not left to default.
    """

    suite: str
    policy: str
    rest: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        """`mini on tabletop`, with what was set besides."""
        extra = ", ".join(f"{name} {value}" for name, value in self.rest)
        return f"{self.policy} on {self.suite}" + (f" ({extra})" if extra else "")


@dataclass(frozen=True)
class RunFolder:
    """One run.

    Attributes:
        path: where it lies.
        config: `config.yaml`.
        env: `env.json`; empty when it is not there.
        records: finished episodes in the order of the file.
        setup: what was measured.
    """

    path: Path
    config: Mapping[str, Any]
    env: Mapping[str, Any]
    records: tuple[EpisodeRecord, ...]
    setup: Setup


def read_run(folder: Path) -> RunFolder:
    """Read a run folder: `config.yaml`, `env.json` and `episodes.jsonl`.

    Raises:
        ResultsError: when the folder is no run folder, or one of its files is damaged.
    """
    config = _mapping(folder / "config.yaml") or _named_in_metrics(folder)
    try:
        records = tuple(read_episodes(folder / EPISODES).records)
    except RolloutError as error:
        raise ResultsError(str(error)) from None
    if not records:
        raise ResultsError(f"{folder / EPISODES} holds no finished episode: let the run go on")
    key = _mapping(folder / "run.json").get("key")
    env = _mapping(folder / "env.json")
    setup = setup_of(config, env, None if key is None else str(key))
    return RunFolder(folder, config, env, records, setup)


def run_folders(folder: Path) -> list[Path]:
    """The run folders that a path stands for: itself, or all runs of a sweep's store.

    Raises:
        ResultsError: when it is neither.
    """
    if (folder / EPISODES).is_file():
        return [folder]
    runs = sorted(path.parent for path in folder.glob(f"runs/*/{EPISODES}"))
    if not runs:
        raise ResultsError(
            f"{folder} has no {EPISODES}, nor runs of a sweep: give a folder that `leanvla "
            "rollout` or `leanvla sweep` wrote"
        )
    return runs


def setup_of(config: Mapping[str, Any], env: Mapping[str, Any], key: str | None = None) -> Setup:
    """What a run measures, whichever cells and seeds it covers.

    Args:
        config: of a rollout.
        env: its `env.json`; runs of before weights and assets were recorded do not say them.
        key: of a sweep's run, which stands for code and packages, too.
    """
    rest = ((name, config.get(name)) for name in DECIDES)
    told = tuple((name, _words(value)) for name, value in rest if value not in UNSET)
    told += tuple((name, digest[:SHOWN_DIGITS]) for name, digest in recorded(env).items())
    if key is not None:
        told += (("run", key[:SHOWN_DIGITS]),)
    return Setup(str(config["suite"]), str(config["policy"]), told)


def recorded(env: Mapping[str, Any]) -> dict[str, str]:
    """The hashes in an `env.json` that decide what is measured, by name; absent where untold."""
    parts = {name: env.get(part) for name, part in RECORDED.items()}
    told = {name: part.get(name) for name, part in parts.items() if isinstance(part, dict)}
    return {name: str(digest) for name, digest in told.items() if digest}


def _words(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def _mapping(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))  # JSON is YAML
    except (yaml.YAMLError, UnicodeDecodeError):
        found = None
    if not isinstance(found, dict):
        raise ResultsError(f"{path} cannot be read: restore the file, or leave the folder out")
    return found


def _named_in_metrics(folder: Path) -> dict[str, Any]:
    """Suite and policy from `metrics.json`, for a folder that lost its configuration."""
    try:
        first = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))["runs"][0]
        return {"suite": first["suite"], "policy": first["policy"]}
    except (OSError, ValueError, LookupError, TypeError):
        raise ResultsError(
            f"{folder} has no config.yaml: nothing says which suite and policy it measured"
        ) from None
