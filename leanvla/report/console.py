"""The one table that a rollout prints on stdout."""

from __future__ import annotations

import shutil
import sys
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from leanvla.report.rollout import name

if TYPE_CHECKING:
    from collections.abc import Mapping

    Run = Mapping[str, Any]

PLAIN_WIDTH = 132


def print_table(metrics: Mapping[str, Any]) -> None:
    """Print one row per cell; full width when stdout is a file or a pipe."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("cell", no_wrap=True)
    for head in ("success", "95 % interval", "vs dense", "errors", "kept", "p50 ms", "p95 ms"):
        table.add_column(head, justify="right", no_wrap=True)
    for head in ("speed-up", "ceiling"):
        table.add_column(head, justify="right", no_wrap=True)
    table.add_column("engine", no_wrap=True)
    for run in metrics["runs"]:
        table.add_row(*_row(run))
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else PLAIN_WIDTH
    Console(width=width, highlight=False).print(table)


def _row(run: Run) -> tuple[str, ...]:
    low, high = run["success_ci95"]
    paired, latency = run["paired_difference_to_dense"], run["query_latency_ms"]
    return (
        name(run),
        _show(run["success_rate"], ".1%"),
        f"{low:.1%} – {high:.1%}",
        f"{paired['difference'] * 100:+.1f} pt" if paired and paired["n"] else "–",
        str(run["errors"]),
        f"{run['tokens']['kept']}/{run['tokens']['visual']}",
        _show(latency["p50"], ".2f"),
        _show(latency["p95"], ".2f"),
        _show(run["speedup_p50"], ".2f", "×"),
        _show(run["speedup_ceiling"], ".2f", "×"),
        (run.get("engine") or "–").partition(" ")[0],
    )


def _show(value: float | None, form: str, unit: str = "") -> str:
    return "–" if value is None else f"{value:{form}}{unit}"
