"""`leanvla verify --episodes`: does an engine succeed as often as its model, on the same seeds?"""

from __future__ import annotations

import contextlib
import json
import sys
from typing import TYPE_CHECKING, Any

from leanvla.commands.engine_folder import engine_folder
from leanvla.commands.verify import TORCH
from leanvla.errors import CHECK_FAILED, INTERRUPTED
from leanvla.report.words import p_value
from leanvla.run_folder import open_run_folder, write_json
from sim.rollout.store import EpisodeStore
from sim.rollout.types import DENSE, Cell
from sim.statistics import UNDECIDED, holm, paired_difference, verdict, wilson_interval

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from engines.artefact import Engine
    from engines.manifest import Rung
    from leanvla.commands.rollout import Rollout
    from leanvla.commands.verify import Verify
    from sim.rollout.types import EpisodeRecord

SCHEMA = "leanvla.verify-episodes/2"
REFERENCE, ENGINE = "reference", "engine"
# How the comparison is carried out or shown; may differ when it goes on.
NOT_COMPARED = ("out", "workers", "json", "observations")


def compare_episodes(config: Verify, engine: Engine, rungs: Sequence[Rung]) -> int:
    """Roll both out, show the paired differences; 1 when an interval leaves zero out.

    Raises:
        UsageError: for a folder that holds another comparison.
        EngineError: when the reference is an engine of other weights, or lacks a rung.
        RolloutError: when a run could not go on; what was finished is kept.
    """
    from leanvla.commands.rollout import run as roll_out

    reference = TORCH if config.against == TORCH else str(engine_folder(config.against))
    runs = {REFERENCE: reference, ENGINE: str(engine.folder)}
    open_run_folder(config.out, config, resume=True, ignore=NOT_COMPARED)
    _say(
        f"{len(rungs)} rungs x {config.episodes} episodes, by {config.against} and by the engine: "
        f"{2 * len(rungs) * config.episodes} episodes in all"
    )
    for number, (kind, runtime) in enumerate(runs.items(), 1):
        _say(f"{number} of {len(runs)}: {runtime}")
        with contextlib.redirect_stdout(sys.stderr):  # stdout is for the comparison
            code = roll_out(_rollout(config, engine, rungs, kind, runtime))
        if code == INTERRUPTED:
            return code
    cells = compare(config.out, [Cell(rung.method, rung.keep) for rung in rungs])
    result = {
        "schema": SCHEMA,
        "engine": str(engine.folder),
        "precision": engine.manifest.precision,
        "reference": config.against,
        "cells": cells,
    }
    write_json(config.out / "metrics.json", result)
    _show(config, result)
    return 0 if all(cell["within_noise"] for cell in cells) else CHECK_FAILED


def compare(out: Path, cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """Success of engine and reference on the seeds that both have judged, cell by cell."""
    found = {kind: _judged(out / kind / "episodes.jsonl") for kind in (REFERENCE, ENGINE)}
    seeds = sorted({seed for _, seed in found[REFERENCE]})
    rows = []
    for cell in cells:
        places = [(cell, seed) for seed in seeds]
        both = [place for place in places if all(place in side for side in found.values())]
        rows.append(_row(cell, *([found[kind][place] for place in both] for kind in found)))
    for row, p in zip(rows, holm([row["p_value"] for row in rows]), strict=True):
        row["p_holm"] = p
    return rows


def _rollout(
    config: Verify, engine: Engine, rungs: Sequence[Rung], kind: str, runtime: str
) -> Rollout:
    from leanvla.commands.rollout import Rollout

    pruned = [rung for rung in rungs if rung.method != DENSE]
    return Rollout(
        suite=str(config.suite),
        policy=config.policy or engine.manifest.policy,
        engine=runtime,
        method=",".join(dict.fromkeys(rung.method for rung in pruned)) or DENSE,
        keep=",".join(dict.fromkeys(f"{rung.keep:g}" for rung in pruned)) or "1",
        episodes=config.episodes,
        seed=config.seed,
        workers=config.workers,
        out=config.out / kind,
        resume=True,
        video=0,
    )


def _judged(path: Path) -> dict[tuple[Cell, int], EpisodeRecord]:
    with EpisodeStore(path) as store:
        return {(r.cell, r.seed): r for r in store if r.outcome != "error"}


def _row(
    cell: Cell, reference: Sequence[EpisodeRecord], engine: Sequence[EpisodeRecord]
) -> dict[str, Any]:
    """One rung. Without a single pair nothing is shown, and that is no pass."""
    won = {
        kind: [record.outcome == "success" for record in side]
        for kind, side in ((REFERENCE, reference), (ENGINE, engine))
    }
    paired = paired_difference(won[ENGINE], won[REFERENCE])
    pairs = zip(reference, engine, strict=True)
    row: dict[str, Any] = {"cell": str(cell), "episodes": paired.n}
    for kind, side in won.items():
        row[f"{kind}_successes"] = sum(side)
        row[f"{kind}_success_ci95"] = list(wilson_interval(sum(side), paired.n))
    return row | {
        "same_outcome_and_steps": sum(
            (a.outcome, a.steps) == (b.outcome, b.steps) for a, b in pairs
        ),
        "difference": paired.difference,
        "ci95": list(paired.ci95),
        "gained": paired.gained,
        "lost": paired.lost,
        "p_value": paired.p_value,
        "verdict": verdict(paired.ci95),
        "within_noise": paired.n > 0 and verdict(paired.ci95) == UNDECIDED,
    }


def _show(config: Verify, result: dict[str, Any]) -> None:
    if config.json:
        print(json.dumps(result, indent=2))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{result['engine']} ({result['precision']}) beside {config.against}")
    heads = ("rung", "episodes", config.against, "engine", "same course", "difference", "95 %")
    for head in (*heads, "McNemar", "Holm", "verdict"):
        table.add_column(head, justify="left" if head in ("rung", "verdict") else "right")
    for cell in result["cells"]:
        low, high = cell["ci95"]
        table.add_row(
            cell["cell"],
            str(cell["episodes"]),
            str(cell["reference_successes"]),
            str(cell["engine_successes"]),
            str(cell["same_outcome_and_steps"]),
            f"{cell['difference'] * 100:+.1f} pt",
            f"{low * 100:+.1f} … {high * 100:+.1f}",
            p_value(cell["p_value"]),
            p_value(cell["p_holm"]),
            cell["verdict"] if cell["episodes"] else "no pair was judged",
        )
    Console(highlight=False).print(table)


def _say(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)
