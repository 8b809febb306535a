"""`report.html` of a profile: numbers, where time goes, how it spreads, under which conditions."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

from leanvla.report.cdf import latency_cdf
from leanvla.report.charts import Bar, latency_bars
from leanvla.report.page import facts, page, paragraph, section, table
from leanvla.report.profile_torch import torch_findings, torch_table
from policy.types import PHASES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from engines.profile.measure import Sample

    Cell = Mapping[str, Any]

BEFORE_POLICY = ("decode_image", "observation")


def document(metrics: Mapping[str, Any], samples: Sequence[Sample], env: Mapping[str, Any]) -> str:
    """The whole page.

    Args:
        metrics: content of `metrics.json`.
        samples: the queries that count.
        env: content of `env.json`.
    """
    cells = metrics["cells"]
    title = f"Profile: {metrics['subject']}"
    said = "".join(f"<li>{escape(sentence)}</li>" for sentence in findings(metrics))
    body = [
        f"<h1>{escape(title)}</h1>",
        paragraph(_how(metrics), "soft"),
        *(paragraph(warning, "note") for warning in warnings(metrics)),
        f"<ul>{said}</ul>",
        section("Whole query", _queries(cells)),
        *([section("Beside torch", torch_table(metrics))] if "beside_torch" in metrics else []),
        section("Where the time goes", *_bars(cells), _phases(cells)),
        section("Energy", _energy(metrics.get("energy"))),
        section("How it spreads", _spread(samples)),
        section("Warm-up", _warmup(cells)),
        section("Work", _work(cells), facts(metrics["memory"])),
        section("Architecture", facts(metrics["architecture"])),
        section("Conditions", facts(metrics["conditions"]), facts(env)),
    ]
    return page(title, body)


def ordered_phases(cells: Sequence[Cell]) -> list[str]:
    """Every phase of any cell, in the order of a query; a policy's own names come last."""
    known = [*BEFORE_POLICY, *PHASES]
    present = dict.fromkeys(name for cell in cells for name in cell["phase_ms"])
    return sorted(present, key=lambda name: known.index(name) if name in known else len(known))


def findings(metrics: Mapping[str, Any]) -> list[str]:
    """One plain sentence per pruned cell."""
    cells = metrics["cells"]
    said = [_finding(cell) for cell in cells if cell["keep"] < 1]
    said += torch_findings(metrics)
    return said or ["Only the dense cell was measured: there is nothing to compare it with."]


def warnings(metrics: Mapping[str, Any]) -> list[str]:
    """What stands in the way of trusting these numbers."""
    said, conditions = [], metrics["conditions"]
    if conditions["throttled_because"]:
        said.append(
            f"The machine held back in {conditions['throttled_rounds']} round(s): "
            f"{', '.join(conditions['throttled_because'])}. Their queries are in the figures, and "
            "marked in samples.jsonl."
        )
    if metrics["device"] == "cpu":
        least = min(cell["cpu_share"] for cell in metrics["cells"]) / metrics["threads"]
        if least < 0.9:
            said.append(
                f"Other work shared the processor: this process got {least:.0%} of its cores while "
                "it was measured. Trust processor time and ratios, not wall time."
            )
    return said


def _how(metrics: Mapping[str, Any]) -> str:
    return (
        f"{metrics['rounds']} rounds after {metrics['warmup_rounds']} of warm-up; in every round "
        "each cell answered the same query once, in an order drawn anew. "
        f"{metrics.get('runs_on') or metrics['device']}, {metrics['threads']} thread(s); "
        f"{metrics['scenes']}."
    )


def _finding(cell: Cell) -> str:
    low, high = cell["speedup"]["ci95"]
    value, ceiling = cell["speedup"]["p50"], cell["speedup_ceiling"]
    verdict = "no difference to dense could be shown"
    if low > 1:
        verdict = "faster than dense"
    elif high < 1:
        verdict = "slower than dense: it costs more than it saves"
    most = ""
    if ceiling is not None:
        most = (
            f" Dropping these tokens could give {ceiling:.2f}× at most by the dense phases, "
            f"{cell['speedup_ceiling_macs']:.2f}× by operations alone."
        )
    return (
        f"{cell['cell']}: {cell['query_ms']['p50']:.2f} ms at the median, {value:.2f}× "
        f"(95 % interval {low:.2f} to {high:.2f}), {verdict}.{most}"
    )


def _queries(cells: Sequence[Cell]) -> str:
    times = ("p50 ms", "p95 ms", "p99 ms", "max ms", "CPU p50 ms")
    return table(
        ("", "tokens kept", *times, "speed-up", "by CPU time", "of ceiling", "queries"),
        map(_query_row, cells),
        "From compressed frames to the action chunk, device idle at both ends. Small figures are "
        "95 % intervals of the ratio of medians, from resampled rounds. Ceiling: Amdahl's limit "
        "from the dense phases, and how much of it was reached. CPU: processor time of all threads "
        "of this process.",
    )


def _query_row(cell: Cell) -> list[str]:
    query, ceiling = cell["query_ms"], cell["speedup_ceiling"]
    reached = cell["ceiling_reached"]
    shown = "–" if ceiling is None else f"{ceiling:.2f}× <small>{reached:.0%}</small>"
    throttled = cell["throttled_queries"]
    marked = f' <span class="bad">{throttled} throttled</span>' if throttled else ""
    return [
        escape(cell["cell"]),
        f"{cell['tokens']['kept']} / {cell['tokens']['visual']}",
        *(f"{query[name]:.2f}" for name in ("p50", "p95", "p99", "max")),
        f"{cell['cpu_ms']['p50']:.2f}",
        _ratio(cell["speedup"]),
        _ratio(cell["cpu_speedup"]),
        shown,
        f"{cell['queries']}{marked}",
    ]


def _ratio(ratio: Mapping[str, Any]) -> str:
    low, high = ratio["ci95"]
    return f"{ratio['p50']:.2f}× <small>{low:.2f} – {high:.2f}</small>"


def _bars(cells: Sequence[Cell]) -> tuple[str, str]:
    phases = ordered_phases(cells)
    dense = cells[0]["query_ms"]["p50"]
    bars = []
    for cell in cells:
        parts = [(p, cell["phase_ms"][p]["p50"]) for p in phases if p in cell["phase_ms"]]
        ceiling = cell["speedup_ceiling"]
        shortest = dense / ceiling if ceiling and ceiling > 1 else None
        bars.append(Bar(cell["cell"], parts, cell["query_ms"]["p50"], shortest))
    text = (
        "Medians. The tick is the ceiling: the dense query with the layers above the cut shortened "
        "by the tokens that were dropped, and nothing else changed."
    )
    return paragraph(text), latency_bars(bars)


def _phases(cells: Sequence[Cell]) -> str:
    def shown(found: Mapping[str, float] | None) -> str:
        if found is None:
            return "–"
        return f"{found['p50']:.3f} <small>{found['p95']:.3f}, {found['p99']:.3f}</small>"

    rows = [
        [escape(phase), *(shown(cell["phase_ms"].get(phase)) for cell in cells)]
        for phase in ordered_phases(cells)
    ]
    rows.append(["gap", *(shown(cell["gap_ms"]) for cell in cells)])
    rows.append(["<b>query</b>", *(shown(cell["query_ms"]) for cell in cells)])
    inside = [cell.get("attention_rows_ms") for cell in cells]
    if any(inside):
        shown_rows = ("–" if ms is None else f"{ms:.3f}" for ms in inside)
        rows.append(["attention rows, inside prefill_below", *shown_rows])
    return table(
        ("ms", *(cell["cell"] for cell in cells)),
        rows,
        "p50, then p95 and p99. The gap is what the phases leave of the whole query: calls between "
        "them, and copies of results. On a GPU every phase ends with a wait for the device, so the "
        "parts add up, at the price of the overlap between them. A split engine computes the "
        "attention rows that its choice reads inside the lower layers: what prefill_below takes "
        "longer than dense's belongs to the choice, and `selection` is the choice alone.",
    )


def _energy(energy: Mapping[str, Any] | str | None) -> str:
    """J per query by meter, or that no meter can be read."""
    if not isinstance(energy, dict):
        return paragraph(f"Energy: {energy or 'not measured'}.", "soft")
    meters = list(energy["idle_w"])

    def shown(value: float | str, unit: str) -> str:
        return escape(value) if isinstance(value, str) else f"{value:.3f} {unit}"

    rows = [
        [
            escape(name),
            str(cell["queries"]),
            *(shown(cell["j_per_query"][m], "J") for m in meters),
            *(shown(cell["w"][m], "W") for m in meters),
        ]
        for name, cell in energy["cells"].items()
    ]
    idle = ", ".join(f"{m} {shown(energy['idle_w'][m], 'W')}" for m in meters)
    heads = (*(f"{m}, per query" for m in meters), *(f"{m}, mean" for m in meters))
    return table(
        ("", "queries", *heads),
        rows,
        f"Every cell alone, after the rounds above. All that the part drew, idling included; idle "
        f"before: {idle}.",
    )


def _spread(samples: Sequence[Sample]) -> str:
    cells: dict[str, list[float]] = {}
    for sample in samples:
        cells.setdefault(sample.cell, []).append(sample.query_ms)
    return latency_cdf(dict(sorted(cells.items(), key=lambda item: item[0] != "dense")))


def _warmup(cells: Sequence[Cell]) -> str:
    def shown(ms: float | None) -> str:
        return "–" if ms is None else f"{ms:.2f}"

    rows = (
        [
            escape(cell["cell"]),
            str(cell["warmup"]["queries"]),
            shown(cell["warmup"]["first_query_ms"]),
            shown(cell["warmup"]["p50_ms"]),
            shown(cell["query_ms"]["p50"]),
        ]
        for cell in cells
    )
    return table(
        ("", "queries", "first ms", "p50 ms", "steady p50 ms"),
        rows,
        "Warm-up rounds, and queries that ran dense to fill a history. None of them counts above.",
    )


def _work(cells: Sequence[Cell]) -> str:
    rows = [
        [
            escape(f"{cell['cell']}: {stage['stage']}"),
            f"{stage['macs'] / 1e9:.3f}",
            f"{stage['weights_bytes'] / 1e6:.2f}",
            f"{stage['other_bytes'] / 1e6:.3f}",
        ]
        for cell in cells
        for stage in cell["stages"]
        if stage["macs"]
    ]
    rows += [
        [f"<b>{escape(cell['cell'])}: query</b>", f"{cell['macs'] / 1e9:.3f}", "", ""]
        for cell in cells
    ]
    return table(
        ("", "GMAC", "weights read MB", "other MB"),
        rows,
        "Counted, not measured. Bytes are the least that must move: weights once, inputs, outputs, "
        "keys and values.",
    )
