"""How a rollout is going, on stderr: a bar and a table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from sim.statistics import percentile

if TYPE_CHECKING:
    from typing_extensions import Self

    from sim.rollout.runner import Plan
    from sim.rollout.types import Beat, Cell, EpisodeRecord

LINE_EVERY_S = 5.0
REMEMBERED = 500  # queries per cell that the running median looks back on


@dataclass
class _Tally:
    successes: int = 0
    judged: int = 0
    errors: int = 0
    query_ms: deque[float] = field(default_factory=lambda: deque(maxlen=REMEMBERED))

    def __str__(self) -> str:
        text = f"{self.successes}/{self.judged}"
        if self.errors:
            text += f" +{self.errors} lost"
        return f"{text}  {percentile(self.query_ms, 50):.1f} ms" if self.query_ms else text


class LiveProgress:
    """Running success and median latency of every cell. A context manager.

    Args:
        plan: what will run; sets the length of the bar.
        done: episodes that an earlier run finished.
        others: finished and planned episodes of the other runs of a sweep.
        title: what runs, for a sweep.
    """

    def __init__(
        self,
        plan: Plan,
        done: list[EpisodeRecord],
        others: tuple[int, int] = (0, 0),
        title: str = "",
    ) -> None:
        self._finished, self._total = others[0], plan.episodes + others[1]
        self._title = f"{title}: " if title else ""
        self._tallies: dict[Cell, _Tally] = {cell: _Tally() for cell in plan.cells}
        self._began, self._last_line = time.monotonic(), time.monotonic()
        self._bar = Progress(
            TextColumn("episodes"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
        )
        self._task = self._bar.add_task("episodes", total=self._total)
        for record in done:
            self.episode(record)
        self._live: Live | None = None
        self._closed = False
        if sys.stderr.isatty():
            console = Console(stderr=True)
            self._live = Live(console=console, get_renderable=self._picture, transient=True)

    def __enter__(self) -> Self:
        """Start drawing."""
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop drawing; the last state stays as a line."""
        if self._live:
            self._live.stop()
        self._say()
        self._closed = True

    def beat(self, beat: Beat) -> None:
        """A query was answered."""
        self._tallies[beat.cell].query_ms.append(beat.query_ms)
        due = time.monotonic() - self._last_line >= LINE_EVERY_S
        if due and self._live is None and not self._closed:
            self._say()

    def episode(self, record: EpisodeRecord) -> None:
        """An episode finished."""
        tally = self._tallies[record.cell]
        self._finished += 1
        tally.errors += record.outcome == "error"
        tally.judged += record.outcome != "error"
        tally.successes += record.outcome == "success"
        self._bar.update(self._task, completed=self._finished)

    def _say(self) -> None:
        self._last_line = time.monotonic()
        cells = ", ".join(f"{cell} {tally}" for cell, tally in self._tallies.items())
        elapsed = self._last_line - self._began
        done = f"{self._finished}/{self._total} episodes"
        sys.stderr.write(f"{done}, {elapsed:.0f} s: {self._title}{cells}\n")
        sys.stderr.flush()

    def _picture(self) -> Group:
        table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
        for cell, tally in self._tallies.items():
            table.add_row(str(cell), str(tally))
        return Group(self._bar, table)
