"""A folder of runs, each addressed by what its episodes depend on.

    STORE/
      sweep.yaml            the last file that was swept into it
      episodes.parquet      all episodes, one row each; made from the runs, never read
      runs/SUITE-POLICY-KEY/
        run.json            the identity, its key, and the grids that were asked for
        episodes.jsonl      one line per finished episode, appended and synced
        config.yaml env.json metrics.json report.html workers.log    as every rollout leaves them

A run's folder is a rollout's folder. Episodes of another identity go to another folder, and one
suite and policy has one identity in a store, so that nothing in it is compared by mistake.
"""

from __future__ import annotations

import contextlib
import fcntl
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from sim.rollout.runner import Plan
from sim.rollout.store import read_episodes
from sim.rollout.types import Cell
from sim.sweep.digests import write_atomically
from sim.sweep.identity import SCHEMA, differences, run_key

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from sim.rollout.types import EpisodeRecord

    Pair = tuple[Cell, int]


class SweepError(ValueError):
    """A store that cannot be used as asked; the message names the remedy."""


class MixedRunsError(SweepError):
    """Two configurations that must not stand in one store; the message has both sides."""


class Grid(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Cells on seeds, as they were asked for once."""

    cells: tuple[Cell, ...]
    seeds: tuple[int, ...]

    def pairs(self) -> set[Pair]:
        """Every episode of the grid."""
        return {(cell, seed) for cell in self.cells for seed in self.seeds}


class RunFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`run.json`.

    Attributes:
        key: SHA-256 of `identity`.
        suite: how the suite is called in the sweep's file and in tables.
        policy: how the policy is called there.
        identity: see `sim.sweep.identity.identity_of`.
        grids: what was asked for, every extension one more.
    """

    schema: int
    key: str
    suite: str
    policy: str
    identity: dict[str, Any]
    grids: tuple[Grid, ...]

    @property
    def name(self) -> str:
        """Name of the run's folder: `tabletop-mini-3f2a9c1d04be`."""
        label = re.sub(r"[^A-Za-z0-9_.-]+", "_", f"{self.suite}-{self.policy}")
        return f"{label}-{self.key[:12]}"


@dataclass(frozen=True)
class StoredRun:
    """One run of a store."""

    folder: Path
    file: RunFile

    @property
    def title(self) -> str:
        """`tabletop × mini`."""
        return f"{self.file.suite} × {self.file.policy}"

    def episodes(self) -> list[EpisodeRecord]:
        """Its finished episodes, one per cell and seed.

        Raises:
            RolloutError: when a line other than the last is damaged.
        """
        records = read_episodes(self.folder / "episodes.jsonl").records
        return list({(record.cell, record.seed): record for record in records}.values())

    def forget_errors(self) -> int:
        """Take episodes that ended in an error out of the file; returns how many there were."""
        records = self.episodes()
        judged = [record for record in records if record.outcome != "error"]
        if len(judged) < len(records):
            write_episodes(self.folder / "episodes.jsonl", judged)
        return len(records) - len(judged)

    def planned(self) -> set[Pair]:
        """Every episode that was ever asked for."""
        return set().union(*(grid.pairs() for grid in self.file.grids))

    def plan(self) -> Plan:
        """All cells and all seeds that were ever asked for, as one grid for tables."""
        cells = dict.fromkeys(cell for grid in self.file.grids for cell in grid.cells)
        seeds = sorted({seed for grid in self.file.grids for seed in grid.seeds})
        swap = bool(self.file.identity.get("settings", {}).get("swap_instruction"))
        return Plan(tuple(cells), tuple(seeds), swap)

    def write(self) -> None:
        """Write `run.json`."""
        content = msgspec.json.format(msgspec.json.encode(self.file))
        write_atomically(self.folder / "run.json", content + b"\n")


class SweepStore:
    """A store on disk.

    Args:
        folder: where it is, or will be.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def runs(self) -> list[StoredRun]:
        """Its runs by name.

        Raises:
            SweepError: when a `run.json` is damaged.
        """
        paths = sorted((self.folder / "runs").glob("*/run.json"))
        return [StoredRun(path.parent, _read(path)) for path in paths]

    def find(self, suite: str, policy: str, identity: Mapping[str, Any]) -> StoredRun:
        """The run of a suite and a policy, as it is on disk or with no grids yet.

        Raises:
            MixedRunsError: when the store holds them under another identity.
        """
        file = RunFile(SCHEMA, run_key(identity), suite, policy, dict(identity), ())
        for run in self.runs():
            if (run.file.suite, run.file.policy) != (suite, policy):
                continue
            if run.file.key != file.key:
                different = "; ".join(differences(run.file.identity, file.identity))
                raise MixedRunsError(
                    f"{self.folder} holds {run.title} of another configuration (there and here: "
                    f"{different}): choose another folder with `--out NEW`"
                )
            return run
        return StoredRun(self.folder / "runs" / file.name, file)

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """While it is held no other process writes into the store.

        Raises:
            SweepError: when another one does.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / ".lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise SweepError(
                    f"another sweep writes into {self.folder}: wait for it, or give each machine a "
                    "folder of its own and merge them"
                ) from None
            yield


def write_episodes(path: Path, records: Iterable[EpisodeRecord]) -> None:
    """Write an `episodes.jsonl`, whole or not at all."""
    write_atomically(path, b"".join(msgspec.json.encode(record) + b"\n" for record in records))


def extended(run: StoredRun, grids: Sequence[Grid]) -> StoredRun:
    """The run with more grids asked for; one that it has already changes nothing."""
    merged = tuple(dict.fromkeys((*run.file.grids, *grids)))
    return StoredRun(run.folder, msgspec.structs.replace(run.file, grids=merged))


def gaps(run: StoredRun, records: Sequence[EpisodeRecord]) -> dict[Cell, list[int]]:
    """Per cell, the seeds that were asked for and are not there."""
    missing = run.planned() - {(record.cell, record.seed) for record in records}
    found: dict[Cell, list[int]] = {}
    for cell, seed in sorted(missing):
        found.setdefault(cell, []).append(seed)
    return found


def ranges(numbers: Sequence[int]) -> str:
    """Sorted numbers as text: `0-3, 7`."""
    spans: list[list[int]] = []
    for number in numbers:
        if spans and number == spans[-1][1] + 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    return ", ".join(f"{a}" if a == b else f"{a}-{b}" for a, b in spans)


def _read(path: Path) -> RunFile:
    remedy = "restore it from a copy, or choose another folder"
    try:
        file = msgspec.json.decode(path.read_bytes(), type=RunFile)
    except msgspec.MsgspecError as error:
        raise SweepError(f"{path} cannot be read ({error}): {remedy}") from None
    if file.schema != SCHEMA:
        raise SweepError(f"{path} has schema {file.schema}, this version reads {SCHEMA}: {remedy}")
    if file.key != run_key(file.identity):
        raise SweepError(f"{path} was changed by hand: its key is not that of its content")
    return file
