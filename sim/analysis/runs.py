"""Run folders as they lie on disk, read and never written."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import yaml

from sim.rollout.types import EpisodeRecord

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

EPISODES = "episodes.jsonl"
# What decides what is measured. Everything else of a configuration is how a run was carried out,
# or which cells and seeds it covers.
DECIDES = ("execute", "swap_instruction", "option", "unnorm_key", "render_profile", "view_size")
_DECODER = msgspec.json.Decoder(EpisodeRecord)


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
    if not (folder / EPISODES).is_file():
        raise ResultsError(
            f"{folder} has no {EPISODES}: give a folder that `leanvla rollout` wrote"
        )
    config = _mapping(folder / "config.yaml") or _named_in_metrics(folder)
    records = read_episodes(folder / EPISODES)
    if not records:
        raise ResultsError(f"{folder / EPISODES} holds no finished episode: let the run go on")
    return RunFolder(folder, config, _mapping(folder / "env.json"), records, setup_of(config))


def read_episodes(path: Path) -> tuple[EpisodeRecord, ...]:
    """All whole lines of an `episodes.jsonl`; a torn last line is an episode that never finished.

    Raises:
        ResultsError: when another line is damaged.
    """
    lines = path.read_bytes().splitlines(keepends=True)
    records = []
    for number, line in enumerate(lines, 1):
        try:
            records.append(_DECODER.decode(line))
        except (msgspec.DecodeError, UnicodeDecodeError):
            if number == len(lines) and not line.endswith(b"\n"):
                break
            raise ResultsError(
                f"{path} line {number} is no episode: remove the line, or run it again"
            ) from None
    return tuple(records)


def setup_of(config: Mapping[str, Any]) -> Setup:
    """What a configuration measures, whichever cells and seeds it covers."""
    rest = ((name, config.get(name)) for name in DECIDES)
    told = tuple(
        (name, _words(value)) for name, value in rest if value not in (None, False, [], ())
    )
    return Setup(str(config["suite"]), str(config["policy"]), told)


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
