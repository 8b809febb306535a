"""The tables of a report for other programs: CSV, LaTeX, Parquet."""

from __future__ import annotations

import csv
import io
import os
from typing import TYPE_CHECKING, Any

from leanvla.report.rollout import name
from leanvla.report.words import UNKNOWN, number, points

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from sim.rollout.types import EpisodeRecord

    Part = Mapping[str, Any]

_LATEX = {
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
    **{mark: f"\\{mark}" for mark in "&%$#_{}"},
    **{"–": "--", "−": "$-$", "×": r"$\times$", "…": r"\ldots{}"},
}


def csv_text(rows: Sequence[Part]) -> str:
    """Rows of one shape as CSV with a head; unknown values are empty."""
    buffer = io.StringIO()
    if rows:
        writer = csv.DictWriter(buffer, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return buffer.getvalue()


def cell_rows(study: Part) -> list[dict[str, Any]]:
    """One flat row per cell."""
    return [{**_setup(study), **_cell(run)} for run in study["runs"]]


def task_rows(study: Part) -> list[dict[str, Any]]:
    """One flat row per cell and task."""
    return [
        {
            **_setup(study),
            "method": run["method"],
            "keep": run["keep"],
            "task": task,
            "episodes": found["episodes"],
            "successes": found["successes"],
            "success_rate": found["success_rate"],
            "success_low": found["success_ci95"][0],
            "success_high": found["success_ci95"][1],
        }
        for run in study["runs"]
        for task, found in run["tasks"].items()
    ]


def budget_rows(study: Part) -> list[dict[str, Any]]:
    """One flat row per method and loss."""
    return [
        {**_setup(study), "method": method, **one}
        for method, found in study["budgets"].items()
        for one in found
    ]


def recall_rows(study: Part) -> list[dict[str, Any]]:
    """One flat row per cell, role and phase."""
    plain = ("method", "keep", "role", "phase", "queries", "recall", "in_success", "in_failure")
    return [
        {
            **_setup(study),
            **{key: one[key] for key in plain},
            "correlation": one["correlation"],
            "correlation_low": one["ci95"][0] if one["ci95"] else None,
            "correlation_high": one["ci95"][1] if one["ci95"] else None,
            "episodes": one["episodes"],
        }
        for one in study["recall"]
    ]


def latex_table(study: Part) -> str:
    """A table for a paper, in the manner of the booktabs package."""
    lines = [
        r"% \usepackage{booktabs}",
        f"% {study['title']}; from {', '.join(study['folders'])}".replace("\n", " "),
        r"\begin{tabular}{lrrrrl}",
        r"\toprule",
        r"Method & Tokens & Success [95\,\%] & $\Delta$ dense [95\,\%] & ms & Verdict \\",
        r"\midrule",
        *map(_latex_row, study["runs"]),
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return "\n".join(lines) + "\n"


def latex(words: str) -> str:
    """Words with everything that LaTeX would read as a command made plain."""
    return "".join(_LATEX.get(mark, mark) for mark in words)


def write_parquet(path: Path, episodes: Sequence[tuple[Part, EpisodeRecord]]) -> None:
    """One row per episode, lists as lists; the file appears whole or not at all.

    Args:
        path: the file.
        episodes: the set-up of each, and the episode.
    """
    import msgspec
    import pyarrow
    from pyarrow import parquet

    rows = [{**setup, **_episode(msgspec.to_builtins(record))} for setup, record in episodes]
    names = list(dict.fromkeys(key for row in rows for key in row))
    table = pyarrow.table({key: [row.get(key) for row in rows] for key in names})
    part = path.with_name(f".{path.name}.part")
    parquet.write_table(table, part, compression="zstd")
    os.replace(part, path)


def _setup(study: Part) -> dict[str, Any]:
    setup = study["setup"]
    return {"suite": setup["suite"], "policy": setup["policy"], "settings": setup["settings"]}


def _cell(run: Part) -> dict[str, Any]:
    one, paired = run["comparison"], None
    if one is not None:
        paired = one["paired"]
    return {
        "method": run["method"],
        "keep": run["keep"],
        "tokens_kept": run["tokens"]["kept"],
        "tokens": run["tokens"]["visual"],
        "judged": run["successes"] + run["failures"],
        "successes": run["successes"],
        "errors": run["errors"],
        "success_rate": run["success_rate"],
        "success_low": run["success_ci95"][0],
        "success_high": run["success_ci95"][1],
        "paired_seeds": paired and paired["n"],
        "difference": paired and paired["difference"],
        "difference_low": paired and paired["ci95"][0],
        "difference_high": paired and paired["ci95"][1],
        "bootstrap_low": one and one["bootstrap"][0],
        "bootstrap_high": one and one["bootstrap"][1],
        "mcnemar_p": paired and paired["p_value"],
        "holm_p": one and one["p_holm"],
        "verdict": one and one["verdict"],
        "wrong_object_rate": run["wrong_object_rate"],
        "query_p50_ms": run["query_latency_ms"]["p50"],
        "query_p95_ms": run["query_latency_ms"]["p95"],
        "speedup_p50": run["speedup_p50"],
        "speedup_ceiling": run["speedup_ceiling"],
        "query_macs": run["macs"],
    }


def _latex_row(run: Part) -> str:
    low, high = run["success_ci95"]
    rate, one = run["success_rate"], run["comparison"]
    difference, verdict = UNKNOWN, UNKNOWN
    if one is not None:
        paired, verdict = one["paired"], one["verdict"]
        difference = (
            f"{points(paired['difference'])} "
            f"[{points(paired['ci95'][0])}, {points(paired['ci95'][1])}]"
        )
    cells = (
        name(run),
        f"{run['tokens']['kept']}/{run['tokens']['visual']}",
        f"{number(rate and rate * 100, '.1f')} [{low * 100:.1f}, {high * 100:.1f}]",
        difference,
        number(run["query_latency_ms"]["p50"], ".1f"),
        verdict,
    )
    return " & ".join(map(latex, cells)) + r" \\"


def _episode(record: dict[str, Any]) -> dict[str, Any]:
    """A record as columns: phases of a query become one column each, truth stays in JSON lines."""
    record.pop("truth", None)
    phases = record.pop("phase_ms", {})
    return {**record, **{f"{phase}_ms": times for phase, times in phases.items()}}
