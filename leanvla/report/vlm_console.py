"""The one table that `leanvla vlm` prints on stdout."""

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

PLAIN_WIDTH = 150
HEADS = (
    "accuracy", "95 % interval", "vs dense", "p", "kept", "prefill p50", "p95 ms", "decode ms",
    "speed-up", "MACs", "recall", "prec-Ω",
)  # fmt: skip


def print_table(metrics: Mapping[str, Any]) -> None:
    """Print one row per task and cell; full width when stdout is a file or a pipe."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("task", no_wrap=True)
    table.add_column("cell", no_wrap=True)
    for head in HEADS:
        table.add_column(head, justify="right", no_wrap=True)
    notes = [run.get("note") or "" for run in metrics["runs"]]
    if any(notes):
        table.add_column("", no_wrap=True)
    for run, note in zip(metrics["runs"], notes, strict=True):
        table.add_row(run["task"], name(run), *_row(run), *([note] if any(notes) else []))
    wide = PLAIN_WIDTH + max(map(len, notes), default=0)
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else wide
    Console(width=width, highlight=False).print(table)


def _row(run: Run) -> tuple[str, ...]:
    low, high = run["accuracy_ci95"]
    paired, retained = run["paired_difference_to_dense"], run["retention"] or {}
    known = paired and paired["n"]
    return (
        f"{run['accuracy']:.1%}",
        f"{low:.1%} – {high:.1%}",
        f"{paired['difference'] * 100:+.1f} pt" if known else "–",
        f"{paired['p_value']:.3f}" if known else "–",
        f"{run['tokens']['kept']}/{run['tokens']['visual']}",
        _show(run["prefill_ms"]["p50"], ".1f"),
        _show(run["prefill_ms"]["p95"], ".1f"),
        _show(run["decode_ms_per_token"]["p50"], ".1f"),
        _show(run["prefill_speedup_p50"], ".2f", "×"),
        _show(run["prefill_macs_ratio"], ".2f", "×"),
        _show(retained.get("recall"), ".0%"),
        _show(retained.get("precision_omega"), ".0%"),
    )


def _show(value: float | None, form: str, unit: str = "") -> str:
    return "–" if value is None else f"{value:{form}}{unit}"
