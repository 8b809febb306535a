"""`leanvla profile --compare OTHER`: slower or not, cell by cell."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from engines.profile.compare import CellComparison, compare
from leanvla.commands.profile_results import read_folder

if TYPE_CHECKING:
    from engines.profile.measure import Sample
    from leanvla.commands.profile import Profile

SCHEMA = "leanvla.profile.comparison/1"
MUST_MATCH = ("subject", "device", "runs_on", "dtype", "threads", "scenes", "instruction")
MACHINE = ("cpu_model", "cores", "packages")


def compare_folders(config: Profile, metrics: dict[str, Any], samples: list[Sample]) -> int:
    """Print the comparison; 1 when a cell is slower, else 0."""
    from leanvla.run_folder import write_json

    if config.compare is None:
        return 0
    other, other_samples = read_folder(config.compare)
    found = compare(samples, other_samples, config.tolerance)
    differences = _differences(metrics, other) + _machine_differences(config)
    slower = sum(each.verdict == "slower" for each in found)
    result = {
        "schema": SCHEMA,
        "other": str(config.compare),
        "tolerance": config.tolerance,
        "conditions_that_differ": differences,
        "slower_cells": slower,
        "cells": [_plain(each) for each in found],
    }
    write_json(config.out / "comparison.json", result)
    if config.json:
        print(json.dumps(result, indent=2))
    else:
        _print(config, found, differences)
    return 1 if slower else 0


def _differences(metrics: dict[str, Any], other: dict[str, Any]) -> list[str]:
    return [
        f"{name}: {metrics.get(name)!r} here, {other.get(name)!r} there"
        for name in MUST_MATCH
        if metrics.get(name) != other.get(name)
    ]


def _machine_differences(config: Profile) -> list[str]:
    here, there = _environment(config.out), _environment(config.compare)
    return [
        f"{name}: {here.get(name)} here, {there.get(name)} there"
        for name in MACHINE
        if here.get(name) != there.get(name)
    ]


def _environment(folder: Any) -> dict[str, Any]:
    path = folder / "env.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _plain(each: CellComparison) -> dict[str, Any]:
    return {
        "cell": each.cell,
        "query_p50_ms": each.now_ms,
        "other_query_p50_ms": each.before_ms,
        "ratio": each.ratio.value,
        "ratio_ci95": [each.ratio.low, each.ratio.high],
        "verdict": each.verdict,
    }


def _print(config: Profile, found: list[CellComparison], differences: list[str]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("cell", no_wrap=True)
    for head in ("here p50 ms", "there p50 ms", "here / there", "95 % interval", "verdict"):
        table.add_column(head, justify="right", no_wrap=True)
    for each in found:
        ratio = each.ratio
        table.add_row(
            each.cell,
            f"{each.now_ms:.2f}",
            f"{each.before_ms:.2f}",
            f"{ratio.value:.3f}",
            f"{ratio.low:.3f} – {ratio.high:.3f}",
            each.verdict,
        )
    console = Console(highlight=False, markup=False, width=120)
    console.print(f"{config.out} against {config.compare}, tolerance {config.tolerance:.0%}")
    console.print(table)
    for difference in differences:
        console.print(f"not like with like: {difference}", soft_wrap=True)
