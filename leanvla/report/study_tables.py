"""The tables of a report for other programs: CSV and Parquet."""

from __future__ import annotations

import csv
import io
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from sim.rollout.types import EpisodeRecord

    Part = Mapping[str, Any]

_SETUP = ("suite", "policy", "settings")
_CELL = (
    *("method", "keep", "tokens_kept", "tokens", "judged", "successes", "errors", "success_rate"),
    *("success_low", "success_high", "paired_seeds", "difference", "difference_low"),
    *("difference_high", "bootstrap_low", "bootstrap_high", "mcnemar_p", "holm_p", "holm_cells"),
    *("verdict", "wrong_object_rate", "query_p50_ms", "query_p95_ms", "speedup_p50"),
    *("speedup_ceiling", "query_macs"),
)
_TASK = (
    *("method", "keep", "task", "episodes", "successes"),
    *("success_rate", "success_low", "success_high"),
)
_BUDGET = ("method", "drop", "tokens", "low", "high", "seeds")
_RECALL = (
    *("method", "keep", "role", "phase", "queries", "recall", "in_success", "in_failure"),
    *("correlation", "correlation_low", "correlation_high", "withheld", "episodes"),
)


def csv_text(columns: Sequence[str], rows: Sequence[Part]) -> str:
    """Rows as CSV, with a head even when there are none; unknown values are empty."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, columns, lineterminator="\n")
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
            "withheld": one["withheld"],
            "episodes": one["episodes"],
        }
        for one in study["recall"]
    ]


def comparison_rows(comparisons: Sequence[Part], compared: Part) -> list[dict[str, Any]]:
    """One flat row per comparison, A minus B."""
    folders = {"a_folder": compared["a"]["folder"], "b_folder": compared["b"]["folder"]}
    return [
        {
            "a": one["treatment"],
            "b": one["reference"],
            **folders,
            "paired_seeds": one["paired"]["n"],
            "a_alone": one["paired"]["gained"],
            "b_alone": one["paired"]["lost"],
            **_paired(one),
            "unpaired": one["unpaired"],
        }
        for one in comparisons
    ]


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
    one = run["comparison"]
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
        **({} if one is None else {"paired_seeds": one["paired"]["n"], **_paired(one)}),
        "wrong_object_rate": run["wrong_object_rate"],
        "query_p50_ms": run["query_latency_ms"]["p50"],
        "query_p95_ms": run["query_latency_ms"]["p95"],
        "speedup_p50": run["speedup_p50"],
        "speedup_ceiling": run["speedup_ceiling"],
        "query_macs": run["macs"],
    }


def _paired(one: Part) -> dict[str, Any]:
    paired = one["paired"]
    return {
        "difference": paired["difference"],
        "difference_low": paired["ci95"][0],
        "difference_high": paired["ci95"][1],
        "bootstrap_low": one["bootstrap"][0],
        "bootstrap_high": one["bootstrap"][1],
        "mcnemar_p": paired["p_value"],
        "holm_p": one["p_holm"],
        "holm_cells": one["family"],
        "verdict": one["verdict"],
    }


def _episode(record: dict[str, Any]) -> dict[str, Any]:
    """A record as columns: phases of a query become one column each, truth stays in JSON lines."""
    record.pop("truth", None)
    phases = record.pop("phase_ms", {})
    return {**record, **{f"{phase}_ms": times for phase, times in phases.items()}}


# By file: its columns, and the rows of one study.
TABLES: dict[str, tuple[tuple[str, ...], Callable[[Part], list[dict[str, Any]]]]] = {
    "cells": ((*_SETUP, *_CELL), cell_rows),
    "tasks": ((*_SETUP, *_TASK), task_rows),
    "budgets": ((*_SETUP, *_BUDGET), budget_rows),
    "recall": ((*_SETUP, *_RECALL), recall_rows),
}
