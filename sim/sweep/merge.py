"""One store out of the stores of several machines."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, NamedTuple

from sim.rollout.runner import SeedHashes
from sim.rollout.types import Cell, EpisodeRecord
from sim.sweep.identity import differences
from sim.sweep.store import (
    MixedRunsError,
    StoredRun,
    SweepError,
    SweepStore,
    extended,
    write_episodes,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

COPIED = ("config.yaml", "env.json")


class _Part(NamedTuple):
    """One run's share of one machine."""

    store: Path
    run: StoredRun


def merge(sources: Sequence[Path], target: Path) -> SweepStore:
    """Write a new store that holds every episode of the sources once.

    Two machines that ran the same episode must agree; an error gives way to a judged episode.

    Args:
        sources: stores.
        target: a folder that does not exist yet, or is empty.

    Raises:
        MixedRunsError: when a suite and policy were run under different configurations.
        SweepError: when a source holds no run, the target is not free, or machines disagree.
        RolloutError: when a store is damaged, or a seed began from different initial states.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise SweepError(f"{target} is there already: merge into a new folder")
    parts: dict[tuple[str, str], list[_Part]] = {}
    for folder in dict.fromkeys(sources):
        runs = SweepStore(folder).runs()
        if not runs:
            raise SweepError(f"{folder} holds no run: give the folders of `leanvla sweep --out`")
        for run in runs:
            parts.setdefault((run.file.suite, run.file.policy), []).append(_Part(folder, run))
    for same in parts.values():
        _check_same(same)
    united = [(same, _unite(same)) for same in parts.values()]  # all checked before any is written
    for same, records in united:
        _write(target, same, records)
    return SweepStore(target)


def _check_same(parts: Sequence[_Part]) -> None:
    first = parts[0]
    for other in parts[1:]:
        if other.run.file.key != first.run.file.key:
            different = "; ".join(differences(first.run.file.identity, other.run.file.identity))
            raise MixedRunsError(
                f"{first.store} and {other.store} hold {first.run.title} of different "
                f"configurations ({different}): merge folders of one configuration"
            )


def _unite(parts: Sequence[_Part]) -> list[EpisodeRecord]:
    found: dict[tuple[Cell, int], tuple[Path, EpisodeRecord]] = {}
    hashes = SeedHashes()
    for store, run in parts:
        for record in run.episodes():
            hashes.check(record)
            key = record.cell, record.seed
            if key not in found or found[key][1].outcome == "error":
                found[key] = store, record
            elif record.outcome != "error":
                _check_agree(run.title, *found[key], store, record)
    return [record for _, record in found.values()]


def _check_agree(title: str, a: Path, one: EpisodeRecord, b: Path, two: EpisodeRecord) -> None:
    if (one.outcome, one.steps) != (two.outcome, two.steps):
        raise SweepError(
            f"{title}, {one.cell}, seed {one.seed}: {a} has {one.outcome} after {one.steps} steps, "
            f"{b} has {two.outcome} after {two.steps}; take the episode out of one of them"
        )


def _write(target: Path, parts: Sequence[_Part], records: Sequence[EpisodeRecord]) -> None:
    first = parts[0].run
    folder = target / "runs" / first.folder.name
    write_episodes(folder / "episodes.jsonl", records)
    for number, part in enumerate(parts, 1):
        for name in COPIED:
            source = part.run.folder / name
            goal = folder / (name if number == 1 else name.replace(".", f".{number}."))
            if source.is_file() and (number == 1 or name == "env.json"):
                shutil.copyfile(source, goal)
    grids = [grid for part in parts for grid in part.run.file.grids]
    extended(StoredRun(folder, first.file), grids).write()
