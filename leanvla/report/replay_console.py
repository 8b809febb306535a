"""The table that a replay prints on stdout."""

from __future__ import annotations

import shutil
import sys
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from leanvla.report.rollout import name

if TYPE_CHECKING:
    from collections.abc import Mapping

PLAIN_WIDTH = 132
HEADS = (
    *("runs on", "queries", "kept", "p50 ms", "p95 ms"),
    *("to recording", "to dense", "as recorded"),
)


def print_table(metrics: Mapping[str, Any]) -> None:
    """Print one row per cell, and what was read; full width when stdout is no terminal."""
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else PLAIN_WIDTH
    console = Console(width=width, highlight=False, markup=False)
    recording, speed = metrics["recording"], metrics["times_real_time"]
    console.print(
        f"{recording['name']} ({recording['layout']}): {metrics['looks']} looks, "
        f"{metrics['rows']} rows, {metrics['covered_s']:.2f} s in {metrics['wall_s']:.2f} s"
        + (f", {speed:.3g} x real time" if speed else "")
    )
    if not metrics["runs"]:
        return
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("cell", no_wrap=True)
    for head in HEADS:
        table.add_column(head, justify="right", no_wrap=True)
    for run in metrics["runs"]:
        table.add_row(*row(run))
    console.print(table)
    console.print(metrics["open_loop"], style="dim")


def row(run: Mapping[str, Any]) -> tuple[str, ...]:
    """One cell as text; errors are the mean over values, as a part of the range each covers."""
    latency, again = run["query_latency_ms"], run["recorded_decisions"]
    return (
        name(run),
        run["engine"] or "–",
        str(run["queries"]),
        f"{run['tokens']['kept']}/{run['tokens']['visual']}",
        _show(latency["p50"], ".2f"),
        _show(latency["p95"], ".2f"),
        relative(run["error_to_recording"]),
        relative(run["error_to_dense"]),
        f"{again['identical']}/{again['compared']}" if again else "–",
    )


def relative(error: Mapping[str, Any] | None) -> str:
    """`4.1 %` of the range that is covered."""
    value = (error or {}).get("relative")
    return "–" if value is None else f"{value:.1%}"


def _show(value: float | None, form: str) -> str:
    return "–" if value is None else f"{value:{form}}"
