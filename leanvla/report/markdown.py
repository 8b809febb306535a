"""`metrics.json` as a Markdown table for `docs/`: `python -m leanvla.report.markdown DIR`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

HEAD = (
    "| method | keep | tokens | success | 95 % interval | vs dense (paired) | wrong object | "
    "p50 ms | p95 ms | speed-up | ceiling |"
)
RULE = "|---|---|---|---|---|---|---|---|---|---|---|"


def table(metrics: dict[str, Any]) -> str:
    """One row per run of a grid."""
    return "\n".join([HEAD, RULE, *(row(run) for run in metrics["runs"])]) + "\n"


def row(run: dict[str, Any]) -> str:
    """One run as a table row; rates with their trial count, differences with their interval."""
    low, high = run["success_ci95"]
    latency = run["query_latency_ms"]
    cells = [
        run["method"],
        f"{run['keep']:g}",
        f"{run['tokens']['kept']:.0f} of {run['tokens']['visual']:.0f}",
        _rate(run),
        f"{low:.1%} – {high:.1%}",
        _difference(run.get("paired_difference_to_dense")),
        _number(run["wrong_object_rate"], ".1%"),
        _number(latency["p50"], ".1f"),
        _number(latency["p95"], ".1f"),
        _number(run["speedup_p50"], ".2f"),
        _number(run["speedup_ceiling"], ".2f"),
    ]
    return "| " + " | ".join(cells) + " |"


def _rate(run: dict[str, Any]) -> str:
    judged = run["successes"] + run["failures"]
    return f"{run['successes']}/{judged} = {run['success_rate']:.1%}" if judged else "–"


def _difference(paired: dict[str, Any] | None) -> str:
    if not paired or not paired["n"]:
        return "–"
    low, high = paired["ci95"]
    return f"{paired['difference']:+.1%} ({low:+.1%} … {high:+.1%})"


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


if __name__ == "__main__":
    for folder in sys.argv[1:]:
        print(table(json.loads((Path(folder) / "metrics.json").read_text(encoding="utf-8"))))
