"""`report.html` of a replay: recorded beside said, cell beside cell, on the same looks."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

from leanvla.report.charts import Bar, latency_bars
from leanvla.report.page import facts, image, page, paragraph, section, table
from leanvla.report.replay_charts import action_panels
from leanvla.report.replay_console import relative, row
from leanvla.report.replay_pictures import differences, overlays
from leanvla.report.rollout import name
from leanvla.run_folder import write_text
from policy.replay.compare import recorded_rows

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from leanvla.commands.replay_play import Played
    from leanvla.report.rollout import Picture

    Run = Mapping[str, Any]

HEADS = (
    *("", "runs on", "queries", "kept", "p50 ms", "p95 ms"),
    *("to recording", "to dense", "as recorded"),
)
RELATIVE = (
    "Errors to the recording and to dense: mean over values of the mean absolute error, each as a "
    "part of the range that it covers. As recorded: decisions repeated bit for bit, actions and "
    "kept tokens."
)


def write_report(
    path: Path, metrics: Mapping[str, Any], played: Played, conditions: Mapping[str, Any]
) -> None:
    """Write the report; the file appears whole or not at all."""
    recording, runs = metrics["recording"], metrics["runs"]
    title = f"Replay of {recording['name']}"
    body = [
        f"<h1>{escape(title)}</h1>",
        paragraph(f"“{recording['instruction']}”", "soft"),
        paragraph(metrics["open_loop"], "note") if runs else "",
        *(paragraph(note, "note") for note in recording["losses"]["notes"]),
        *(paragraph(note, "soft") for note in metrics["not_compared"]),
        section("Cells", table(HEADS, _rows(runs), RELATIVE) if runs else ""),
        section("Recorded and said", _actions(played)),
        section("Error per value", _errors(runs, "error_to_recording")),
        section("Distance to dense per value, whole chunks", _errors(runs, "error_to_dense")),
        section("Which tokens live", *map(_strip, overlays(played))),
        section("Where two methods differ", _difference(played), _overlap(metrics)),
        section("Where a query's time goes", latency_bars([_bar(run) for run in runs])),
        section("The recording", facts({**_plain(recording), **_read(metrics)})),
        section("Conditions", facts(conditions)),
    ]
    write_text(path, page(f"LeanVLA: {title}", body))


def _rows(runs: Sequence[Run]) -> list[list[str]]:
    return [[escape(cell) for cell in row(run)] for run in runs]


def _actions(played: Played) -> str:
    recorded = played.recorded
    if not played.traces:
        return ""
    curves = {}
    if played.fit.compared and len(recorded):
        curves["recorded"] = recorded_rows(played.fit, recorded, len(played.names))
    rows = len(recorded) or max(
        (t.answers[-1].row + played.execute for t in played.traces if t.answers), default=0
    )
    curves |= {trace.name: trace.executed(rows, played.execute) for trace in played.traces}
    colours = {"recorded": 0} | {trace.name: i + 1 for i, trace in enumerate(played.traces)}
    return action_panels(curves, played.names, played.episode.info.rate_hz, colours)


def _errors(runs: Sequence[Run], which: str) -> str:
    measured = [run for run in runs if run[which] and run[which].get("values")]
    if not measured:
        return ""
    names = list(dict.fromkeys(n for run in measured for n in run[which]["values"]))
    rows = []
    for run in measured:
        values = run[which]["values"]
        cells = [
            f"{values[n]['mae']:.4f} <small>{values[n]['max']:.3f}</small>" if n in values else "–"
            for n in names
        ]
        rows.append([escape(name(run)), relative(run[which]), *cells])
    caption = "Mean absolute error and, small, the largest, in the unit of the value."
    return table(("", "relative", *names), rows, caption)


def _strip(picture: Picture) -> str:
    shown = "".join(image(png, caption, 250) for caption, png in picture.files)
    return f'{paragraph(picture.caption)}<div class="row">{shown}</div>'


def _difference(played: Played) -> str:
    picture = differences(played)
    return "" if picture is None else _strip(picture)


def _overlap(metrics: Mapping[str, Any]) -> str:
    pairs = metrics["kept_overlap"]
    if not pairs:
        return ""
    rows = (
        [
            escape(" and ".join(pair["cells"])),
            f"{pair['jaccard']:.1%}",
            f"{pair['least']:.1%}",
            f"{pair['identical_sets']} of {pair['sets']}",
        ]
        for pair in pairs
    )
    caption = "Tokens that both kept, as a part of those that either kept, per view and query."
    return table(("", "shared", "least", "identical"), rows, caption)


def _bar(run: Run) -> Bar:
    dense = run["query_latency_ms"]["p50"] or 0.0
    ceiling, speedup = run["speedup_ceiling"], run["speedup_p50"]
    shortest = dense * speedup / ceiling if ceiling and ceiling > 1 and speedup else None
    return Bar(name(run), list(run["phase_latency_ms"].items()), dense, shortest)


def _plain(recording: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in recording.items() if key != "losses"}


def _read(metrics: Mapping[str, Any]) -> dict[str, Any]:
    losses = metrics["recording"]["losses"]
    return {
        "seconds lost": f"{losses['seconds']:.3f}",
        "counted": losses["counts"] or "nothing lost",
        "looks": metrics["looks"],
        "rows executed per query": metrics["execute"],
    }
