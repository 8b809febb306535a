"""Runs of one set-up put together: every cell with all of its seeds, from whichever folder."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sim.analysis.runs import RECORDED, ResultsError
from sim.rollout.types import DENSE, Cell

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sim.analysis.runs import RunFolder, Setup
    from sim.rollout.types import EpisodeRecord

DENSE_CELL = Cell(DENSE, 1.0)


@dataclass
class Study:
    """All episodes of one set-up.

    Attributes:
        setup: what was measured.
        folders: where the episodes come from.
        notices: what a reader must know about how they fit together, one sentence each.
    """

    setup: Setup
    folders: list[RunFolder] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    _records: dict[tuple[Cell, int], EpisodeRecord] = field(default_factory=dict)

    @property
    def cells(self) -> tuple[Cell, ...]:
        """Cells with an episode: dense first, then method by method, the largest budget first."""
        found = dict.fromkeys(cell for cell, _ in self._records)
        methods = list(dict.fromkeys(cell.method for cell in found))
        return tuple(
            sorted(
                found,
                key=lambda c: (c.method != DENSE, methods.index(c.method), -c.keep),
            )
        )

    def of(self, cell: Cell) -> list[EpisodeRecord]:
        """The episodes of a cell, by seed."""
        found = [record for (owner, _), record in self._records.items() if owner == cell]
        return sorted(found, key=lambda record: record.seed)

    def judged(self, cell: Cell) -> dict[int, EpisodeRecord]:
        """Episodes of a cell that tell something about the policy, by seed."""
        return {record.seed: record for record in self.of(cell) if record.outcome != "error"}

    def home(self, cell: Cell) -> RunFolder:
        """The folder with most episodes of a cell: its latencies are compared within that one."""
        return max(self.folders, key=lambda folder: sum(r.cell == cell for r in folder.records))

    def add(self, folder: RunFolder) -> None:
        """Take a folder's episodes in.

        Raises:
            ResultsError: when a seed began from another initial state than in a folder before.
        """
        hashes = self._hashes()
        repeated = differing = 0
        for record in folder.records:
            known = hashes.get(record.seed, record.init_state_hash)
            if record.outcome != "error" and known != record.init_state_hash:
                raise ResultsError(
                    f"{folder.path}: seed {record.seed} began from another initial state than in "
                    f"{self.folders[0].path if self.folders else folder.path}: these runs cannot "
                    "be put together; report them apart"
                )
            before = self._records.get((record.cell, record.seed))
            if before is None or before.outcome == "error":
                self._records[record.cell, record.seed] = record
            elif record.outcome != "error":
                repeated += 1
                differing += (before.outcome, before.steps) != (record.outcome, record.steps)
        self.folders.append(folder)
        if repeated:
            self.notices.append(
                f"{folder.path}: {repeated} episodes were there already, the earlier folder's are "
                f"taken; {differing} of them went differently"
            )

    def _hashes(self) -> dict[int, str]:
        return {
            record.seed: record.init_state_hash
            for record in self._records.values()
            if record.outcome != "error"
        }


def put_together(folders: Iterable[RunFolder]) -> list[Study]:
    """One study per set-up, in the order in which they are met.

    Raises:
        ResultsError: when a seed of one set-up began from different initial states.
    """
    studies: dict[Setup, Study] = {}
    for folder in folders:
        studies.setdefault(folder.setup, Study(folder.setup)).add(folder)
    for study in studies.values():
        study.notices += [*_untold(study.setup, studies), *_gaps(study)]
        commits = {folder.env.get("git_commit") for folder in study.folders}
        if len(commits) > 1:
            study.notices.append(
                f"code of {len(commits)} commits: {', '.join(sorted(map(str, commits)))}"
            )
    return list(studies.values())


def outcomes_on(records: Mapping[int, EpisodeRecord], seeds: Iterable[int]) -> list[bool]:
    """Success on the given seeds, in their order."""
    return [records[seed].outcome == "success" for seed in seeds]


def _untold(setup: Setup, setups: Iterable[Setup]) -> list[str]:
    """What others of the same set-up say and these runs, which are older, do not."""

    def but_hashes(one: Setup) -> Setup:
        return one._replace(rest=tuple(item for item in one.rest if item[0] not in RECORDED))

    same = [one for one in setups if but_hashes(one) == but_hashes(setup)]
    told, ours = {name for one in same for name, _ in one.rest}, dict(setup.rest)
    lacking = [name for name in RECORDED if name in told and name not in ours]
    if not lacking:
        return []
    return [
        f"these runs do not say of which {' and '.join(lacking)} they are; others of "
        f"{setup.policy} on {setup.suite} do, and are not put together with them"
    ]


def _gaps(study: Study) -> list[str]:
    """Cells that lack seeds that dense has: their rates are over other scenes."""
    dense = set(study.judged(DENSE_CELL))
    if not dense:
        return ["no dense episode: nothing is compared with dense"]
    missing = {cell: len(dense - set(study.judged(cell))) for cell in study.cells}
    lacking = [f"{cell} ({count})" for cell, count in missing.items() if count]
    if not lacking:
        return []
    return [f"of dense's {len(dense)} seeds some are not there in: {', '.join(lacking)}"]
