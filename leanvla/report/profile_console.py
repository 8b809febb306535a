"""The tables that a profile prints on stdout."""

from __future__ import annotations

import shutil
import sys
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from leanvla.report.profile import ordered_phases
from leanvla.report.profile_torch import HEADS, torch_findings, torch_rows

if TYPE_CHECKING:
    from collections.abc import Mapping

PLAIN_WIDTH = 132


def print_table(metrics: Mapping[str, Any]) -> None:
    """Print one row per cell, and one row per phase; full width when stdout is no terminal."""
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else PLAIN_WIDTH
    console = Console(width=width, highlight=False, markup=False)
    console.print(
        f"{metrics['subject']}; {metrics.get('runs_on') or metrics['device']}, "
        f"{metrics['threads']} thread(s); {metrics['rounds']} interleaved rounds"
    )
    console.print(_cells(metrics))
    console.print(_phases(metrics))
    if "beside_torch" in metrics:
        console.print(_torch(metrics))
        for sentence in torch_findings(metrics):
            console.print(sentence)
    reasons = metrics["conditions"]["throttled_because"]
    if reasons:
        console.print(f"measured while the machine held back: {', '.join(reasons)}")


def _table(*heads: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column(heads[0], no_wrap=True)
    for head in heads[1:]:
        table.add_column(head, justify="right", no_wrap=True)
    return table


def _cells(metrics: Mapping[str, Any]) -> Table:
    times = ("p50 ms", "p95", "p99", "max", "CPU ms")
    table = _table("query", "kept", *times, "speed-up", "95 % interval", "ceiling", "reached")
    for cell in metrics["cells"]:
        query, speedup = cell["query_ms"], cell["speedup"]
        low, high = speedup["ci95"]
        ceiling, reached = cell["speedup_ceiling"], cell["ceiling_reached"]
        table.add_row(
            cell["cell"],
            f"{cell['tokens']['kept']}/{cell['tokens']['visual']}",
            *(f"{query[name]:.2f}" for name in ("p50", "p95", "p99", "max")),
            f"{cell['cpu_ms']['p50']:.2f}",
            f"{speedup['p50']:.2f}×",
            f"{low:.2f} – {high:.2f}",
            "–" if ceiling is None else f"{ceiling:.2f}×",
            "–" if reached is None else f"{reached:.0%}",
        )
    return table


def _phases(metrics: Mapping[str, Any]) -> Table:
    cells = metrics["cells"]
    table = _table("p50 ms by phase", *(cell["cell"] for cell in cells))
    for phase in ordered_phases(cells):
        found = (cell["phase_ms"].get(phase) for cell in cells)
        table.add_row(phase, *("–" if ms is None else f"{ms['p50']:.3f}" for ms in found))
    table.add_row("gap", *(f"{cell['gap_ms']['p50']:.3f}" for cell in cells))
    return table


def _torch(metrics: Mapping[str, Any]) -> Table:
    table = _table("beside torch", *HEADS[1:])
    for row in torch_rows(metrics):
        table.add_row(*row)
    return table
