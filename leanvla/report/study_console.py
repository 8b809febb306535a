"""The tables that `leanvla report` prints on stdout."""

from __future__ import annotations

import shutil
import sys
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from leanvla.report.rollout import name
from leanvla.report.study_compared import ALIKE, SAME_RUN
from leanvla.report.study_verdict import family
from leanvla.report.words import UNKNOWN, number, p_value, percent, points, rule, si

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Part = Mapping[str, Any]

PLAIN_WIDTH = 140


def print_report(report: Part) -> None:
    """Print cells, budgets and comparisons; full width when stdout is a file or a pipe."""
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else PLAIN_WIDTH
    console = Console(width=width, highlight=False, markup=False)
    for study in report["studies"]:
        console.print(_cells(study["runs"], study["title"]))
        if study["budgets"]:
            console.print(_budgets(study["budgets"]))
        if said := family(study["runs"]):
            console.print(rule(said))
    if report["compared"]:
        for line in _sides(report["compared"]):
            console.print(line, soft_wrap=True)
        console.print(_comparisons(report["comparisons"]))
        for line in _footer(report):
            console.print(line)


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    table.add_column(columns[0], no_wrap=True)
    for column in columns[1:]:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def _cells(runs: Sequence[Part], title: str) -> Table:
    table = _table(
        title, "", "success", "95 %", "to dense", "95 %", "p Holm", "verdict", "tokens", "p50 ms",
        "speed-up", "MACs",
    )  # fmt: skip
    for run in runs:
        low, high = run["success_ci95"]
        table.add_row(
            name(run),
            percent(run["success_rate"]),
            f"{low:.1%} – {high:.1%}",
            *_difference(run["comparison"]),
            f"{run['tokens']['kept']}/{run['tokens']['visual']}",
            number(run["query_latency_ms"]["p50"], ".1f"),
            number(run["speedup_p50"], ".2f", "×"),
            si(run["macs"]),
        )
    return table


def _difference(one: Part | None) -> tuple[str, str, str, str]:
    if one is None:
        return UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN
    low, high = one["paired"]["ci95"]
    return (
        points(one["paired"]["difference"]),
        f"{points(low)} – {points(high)}",
        p_value(one["p_holm"]),
        one["verdict"],
    )


def _budgets(budgets: Mapping[str, Sequence[Part]]) -> Table:
    drops = [f"{one['drop'] * 100:g}" for one in next(iter(budgets.values()))]
    heads = [f"{drop} point{'s' * (drop != '1')} lost at" for drop in drops]
    table = _table("tokens", "", *heads, "seeds")
    for method, found in budgets.items():
        table.add_row(method, *map(_budget, found), str(found[0]["seeds"]))
    return table


def _budget(one: Part) -> str:
    ends = ("fewer" if one[key] is None else f"{one[key]:.0f}" for key in ("tokens", "low", "high"))
    return "{} ({} – {})".format(*ends)


def _sides(compared: Part) -> list[str]:
    return [f"{side.upper()} = {compared[side]['folder']}" for side in "ab"]


def _comparisons(comparisons: Sequence[Part]) -> Table:
    """Fits eighty columns: the sides are named above it, a long cell's name is broken."""
    table = Table(box=None, pad_edge=False)
    table.add_column("A against B", overflow="fold")
    for column in ("seeds", "A − B", "95 %", "p Holm", "verdict"):
        table.add_column(column, justify="right", no_wrap=True)
    for one in comparisons:
        pair = [one["treatment"], one["reference"]]
        seeds = str(one["paired"]["n"])
        table.add_row("\n".join(dict.fromkeys(pair)), seeds, *_difference(one))
    return table


def _footer(report: Part) -> list[str]:
    """The rule of the verdicts, what was left out, and in what else the sides differ."""
    comparisons, compared = report["comparisons"], report["compared"]
    lines = [rule(len(comparisons))]
    if unpaired := sum(one["unpaired"] for one in comparisons):
        lines.append(f"Episodes without a partner, left out: {unpaired}.")
    if not compared["differences"]:
        return [*lines, SAME_RUN if compared["same_run"] else ALIKE]
    told = (f"{one['what']}: {one['ours']} | {one['theirs']}" for one in compared["differences"])
    return [*lines, "A and B differ in (A | B):", *(f"  {line}" for line in told)]
