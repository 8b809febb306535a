"""How a run of questions is going, on stderr: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from typing_extensions import Self

    from vlm.runner import Plan
    from vlm.store import Cell, Record

LINE_EVERY_S = 5.0


class AnswerProgress:
    """Running accuracy of every cell. A context manager.

    Args:
        plan: what will be asked; sets the length of the bar.
        done: answers that an earlier run gave.
    """

    def __init__(self, plan: Plan, done: list[Record]) -> None:
        self._total = plan.answers
        self._scores: dict[Cell, list[float]] = {cell: [] for cell in plan.methods}
        self._count, self._last = 0, time.monotonic()
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
            disable=not sys.stderr.isatty(),
        )
        self._task = self._bar.add_task("answers", total=self._total)
        for record in done:
            self._take(record)

    def __enter__(self) -> Self:
        """Start drawing."""
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop drawing; the last state stays as a line."""
        self._bar.stop()
        self._say()

    def answer(self, record: Record) -> None:
        """A question was answered."""
        self._take(record)
        if not sys.stderr.isatty() and time.monotonic() - self._last >= LINE_EVERY_S:
            self._say()

    def _take(self, record: Record) -> None:
        self._count += 1
        self._scores.setdefault(record.cell, []).append(record.score)
        self._bar.update(self._task, completed=self._count, description=f"{record.task}")

    def _say(self) -> None:
        self._last = time.monotonic()
        cells = (
            f"{cell} {sum(scores) / len(scores):.1%}"
            for cell, scores in self._scores.items()
            if scores
        )
        sys.stderr.write(f"{self._count}/{self._total} answers: {', '.join(cells)}\n")
        sys.stderr.flush()
