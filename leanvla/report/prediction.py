"""Predictions as a table on stdout and as `report.html`; nothing in them was measured."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

from leanvla.report.page import page, paragraph, section, table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

STAGES = ("vision", "prefill_below", "prefill_above", "decode", "head")
MEANING = (
    "Predicted, not measured: the least time that counted operations and bytes allow at peak "
    "rates. A real engine takes longer; how much longer differs by stage. 'm' marks a stage that "
    "waits for memory: fewer tokens do not shorten it."
)


def print_prediction(result: Mapping[str, Any]) -> None:
    """Print one row per device and keep ratio."""
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, markup=False, width=132)
    console.print(_head(result))
    shown = Table(box=None, padding=(0, 2, 0, 0))
    shown.add_column("device", no_wrap=True)
    for name in ("keep", *STAGES, "query ≥ ms", "speed-up", ""):
        shown.add_column(name, justify="right", no_wrap=True)
    for device in result["devices"]:
        for row in _rows(device):
            shown.add_row(*row)
    console.print(shown)
    for device in result["devices"]:
        for note in _notes(device):
            console.print(note, soft_wrap=True)
    console.print(MEANING, soft_wrap=True)


def document(result: Mapping[str, Any]) -> str:
    """The whole page."""
    title = f"Predicted: {result['subject']}"
    rows = [[escape(c) for c in row] for d in result["devices"] for row in _rows(d)]
    body = [
        f"<h1>{escape(title)}</h1>",
        paragraph(_head(result), "soft"),
        paragraph(MEANING, "note"),
        table(("device", "keep", *(f"{s} ms" for s in STAGES), "query ≥ ms", "speed-up", ""), rows),
        *(paragraph(note) for device in result["devices"] for note in _notes(device)),
        section("Where the peak rates come from", *map(_sources, result["devices"])),
    ]
    return page(title, body)


def _head(result: Mapping[str, Any]) -> str:
    return (
        f"{result['subject']}, {result['precision']}, weights {result['weights_bytes'] / 1e9:.2f} "
        f"GB, cut after {result['cut_layer']} full decoder layers"
    )


def _rows(device: Mapping[str, Any]) -> list[list[str]]:
    rows = []
    for cell in device["cells"]:
        stages = {stage["stage"]: stage for stage in cell["stages"]}
        name = device["device"] if cell is device["cells"][0] else ""
        shown = [_stage(stages.get(stage)) for stage in STAGES]
        query, speedup = f"{cell['query_at_least_ms']:.2f}", f"{cell['speedup']:.2f}×"
        rows.append([name, f"{cell['keep']:g}", *shown, query, speedup, "predicted"])
    rows += [_reported_row(row) for row in device["reported_by_others"]]
    return rows


def _stage(stage: Mapping[str, Any] | None) -> str:
    if stage is None:
        return "–"
    return f"{stage['at_least_ms']:.2f}" + (" m" if stage["limited_by"] == "memory" else "  ")


def _reported_row(row: Mapping[str, Any]) -> list[str]:
    phases: Sequence[str] = [
        "",
        "",
        f"{row['phase_ms']['prefill']:.0f} (all)" if "prefill" in row["phase_ms"] else "",
        f"{row['phase_ms']['decode']:.0f}" if "decode" in row["phase_ms"] else "",
        "",
    ]
    query = f"{row['query_ms']:.0f}"
    return ["", f"{row['keep']:g}", *phases, query, "", "reported by others"]


def _notes(device: Mapping[str, Any]) -> list[str]:
    notes = [
        f"{device['device']} @ {row['keep']:g}, reported by others: {row['how']} ({row['url']})"
        for row in device["reported_by_others"]
    ]
    if device["weights_fit"] is False:
        notes.append(f"{device['device']}: the weights alone do not fit into its memory")
    return notes


def _sources(device: Mapping[str, Any]) -> str:
    if not device["sources"]:
        return paragraph(f"{device['device']}: {device['name']}, rates {device['rates']}.")
    said = "".join(
        f"<li>{escape(source['for'])} ({escape(source['read'])}): “{escape(source['quote'])}”, "
        f"{escape(source['title'])}, {escape(source['url'])}"
        + (f"; {escape(source['rule'])}" if source.get("rule") else "")
        + "</li>"
        for source in device["sources"]
    )
    others = "".join(
        f"<li>reported by others: {escape(row['how'])}, {escape(row['url'])}</li>"
        for row in device["reported_by_others"]
    )
    return f"<p>{escape(device['device'])}: {escape(device['name'])}</p><ul>{said}{others}</ul>"
