"""What a sweep shows: what it would do, and what a store holds."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

from rich.console import Console
from rich.table import Table

from leanvla.commands.sweep_plan import estimate_run
from leanvla.errors import CHECK_FAILED, EnvironmentFault, UsageError
from leanvla.report.console import PLAIN_WIDTH, print_table
from sim.metrics import SCHEMA, summarise
from sim.sweep.store import SweepStore, gaps, ranges

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from leanvla.commands.sweep import Sweep
    from leanvla.commands.sweep_plan import SweepRun
    from sim.rollout.types import Cell, EpisodeRecord
    from sim.sweep.store import StoredRun


def show_plan(runs: Sequence[SweepRun], config: Sweep) -> int:
    """Print episodes and hours per run; nothing is started or written."""
    workers = config.workers or os.cpu_count() or 1
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("run", no_wrap=True)
    for head in ("episodes", "done", "to do", "hours", "rests on"):
        table.add_column(head, justify="right", no_wrap=True)
    total, episodes, unknown = 0.0, 0, []
    for run in runs:
        todo, cost = len(run.todo()), estimate_run(run, config.costs)
        episodes += todo
        row = [run.title, str(run.plan.episodes), str(run.plan.episodes - todo), str(todo)]
        if cost.seconds is None and todo:
            unknown.append(run.title)
            table.add_row(*row, "unknown", "nothing measured")
            continue
        hours = (cost.seconds or 0.0) / workers / 3600
        total += hours
        guess = f", {cost.borrowed} by their mean" if cost.borrowed else ""
        table.add_row(*row, f"{hours:.2f}", f"{cost.measured} episodes{guess}")
    Console(width=PLAIN_WIDTH, highlight=False).print(table)
    least = "at least " if unknown else ""
    print(f"{episodes} episodes to run, {least}{total:.2f} hours on {workers} worker(s) at no loss")
    for title in unknown:
        _say(f"{title}: nothing was measured yet; sweep two seeds first, or name --costs FOLDER")
    return 0


class Shown(NamedTuple):
    """What a store lacks.

    Attributes:
        missing: episodes that were asked for and are not there.
        unjudged: cells without any judged episode.
    """

    missing: int
    unjudged: int

    @property
    def exit_code(self) -> int:
        """1 when anything is lacking."""
        return CHECK_FAILED if any(self) else 0


def show_status(folder: Path, *, as_json: bool = False) -> Shown:
    """Print a store's tables and gaps.

    Raises:
        UsageError: when the folder holds no run.
    """
    runs = SweepStore(folder).runs()
    if not runs:
        raise UsageError(f"{folder} holds no run: give the folder of `leanvla sweep --out`")
    metrics: list[dict[str, Any]] = []
    missing = 0
    for run in runs:
        records = run.episodes()
        absent = gaps(run, records)
        missing += sum(map(len, absent.values()))
        found = summarise_run(run, records)
        metrics += found["runs"]
        if not as_json:
            print(f"{run.title}: {len(records)} of {len(run.planned())} episodes")
            print_table(found)
        for cell, seeds in absent.items():
            _say(f"{run.title}, {cell}: {len(seeds)} seed(s) missing: {ranges(seeds)}")
    if as_json:
        print(json.dumps({"schema": SCHEMA, "missing": missing, "runs": metrics}, indent=2))
    return Shown(missing, sum(run["success_rate"] is None for run in metrics))


def summarise_run(run: StoredRun, records: Sequence[EpisodeRecord]) -> dict[str, Any]:
    """Content of a run's `metrics.json`."""
    file = run.file
    return summarise(run.plan(), _Records(records), suite=file.suite, policy=file.policy)


def check_parquet() -> None:
    """Find out before the sweep that the table can be written after it.

    Raises:
        EnvironmentFault: when pyarrow is missing.
    """
    if importlib.util.find_spec("pyarrow") is None:
        raise EnvironmentFault("a store's table needs pyarrow: pip install 'leanvla[sweep]'")


class _Records:
    """Episodes by cell, for tables."""

    def __init__(self, records: Sequence[EpisodeRecord]) -> None:
        self._of: dict[Cell, list[EpisodeRecord]] = {}
        for record in sorted(records, key=lambda record: record.seed):
            self._of.setdefault(record.cell, []).append(record)

    def of(self, cell: Cell) -> list[EpisodeRecord]:
        return self._of.get(cell, [])


def _say(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)
