"""What a profile says of an engine beside the eager model that it was made from."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

from leanvla.report.page import table

if TYPE_CHECKING:
    from collections.abc import Mapping

EXPLAINED = (
    "The eager model of the same weights answered the same queries in the same rounds. Least: "
    "what this processor needs for the products alone in float32, at the rate that it reaches on "
    "large matrices; what no float32 runtime can pass."
)
HEADS = ("", "torch p50 ms", "torch CPU ms", "engine is faster", "by CPU time", "least ms", "most")


def torch_findings(metrics: Mapping[str, Any]) -> list[str]:
    """One sentence per rung: how much faster the engine is, and why it is not more."""
    beside = metrics.get("beside_torch")
    if not beside:
        return []
    cells = {cell["cell"]: cell for cell in metrics["cells"]}
    return [_finding(row, cells[row["cell"]], beside["wanted"]) for row in beside["cells"]]


def torch_table(metrics: Mapping[str, Any]) -> str:
    """The rows of all rungs as HTML."""
    rows = [[escape(cell) for cell in row] for row in torch_rows(metrics)]
    return table(HEADS, rows, EXPLAINED)


def torch_rows(metrics: Mapping[str, Any]) -> list[list[str]]:
    """The same as plain text, one list per rung."""
    return [_row(row) for row in metrics["beside_torch"]["cells"]]


def _row(row: Mapping[str, Any]) -> list[str]:
    least, most = row["least_ms"], row["speedup_at_most"]
    return [
        row["cell"],
        f"{row['torch_query_ms']['p50']:.2f}",
        f"{row['torch_cpu_ms']['p50']:.2f}",
        _ratio(row["speedup"]),
        _ratio(row["cpu_speedup"]),
        "–" if least is None else f"{least:.2f}",
        "–" if most is None else f"{most:.2f}×",
    ]


def _ratio(ratio: Mapping[str, Any]) -> str:
    low, high = ratio["ci95"]
    return f"{ratio['p50']:.2f}× ({low:.2f} – {high:.2f})"


def _finding(row: Mapping[str, Any], cell: Mapping[str, Any], wanted: float) -> str:
    low, high = row["speedup"]["ci95"]
    value, least = row["speedup"]["p50"], row["least_ms"]
    said = (
        f"{row['cell']}: the engine answers {value:.2f}× as fast as torch eager (95 % interval "
        f"{low:.2f} to {high:.2f}) in the same rounds."
    )
    if value >= wanted or least is None:
        return said
    engine, torch = cell["cpu_ms"]["p50"], row["torch_cpu_ms"]["p50"]
    return (
        f"{said} Why not {wanted:g}×: its products alone take {least:.1f} ms of this processor's "
        f"time at the rate of large matrices, so no float32 runtime can be more than "
        f"{row['speedup_at_most']:.2f}× as fast as torch's {torch:.1f} ms; the engine takes "
        f"{engine:.1f} ms, {least / engine:.0%} of that rate."
    )
