"""`leanvla verify --episodes`: does an engine succeed as often as its model, on the same seeds?"""

from __future__ import annotations

import contextlib
import json
import sys
from typing import TYPE_CHECKING, Any

from leanvla.errors import CHECK_FAILED, UsageError
from sim.rollout.store import EpisodeStore
from sim.statistics import paired_difference

if TYPE_CHECKING:
    from pathlib import Path

    from engines.artefact import Engine
    from leanvla.commands.verify import Verify
    from sim.rollout.types import EpisodeRecord

SCHEMA = "leanvla.verify-episodes/1"
KINDS = ("torch", "engine")


def compare_episodes(config: Verify, engine: Engine) -> int:
    """Roll both out, show the paired differences; 1 when an interval leaves zero out.

    Raises:
        UsageError: without a suite, or for a number that makes no sense.
        RolloutError: when a run could not go on; what was finished is kept.
    """
    from leanvla.commands.rollout import Rollout
    from leanvla.commands.rollout import run as roll_out

    if config.suite is None:
        raise UsageError("--episodes need a suite to act in: give --suite tabletop")
    manifest = engine.manifest
    pruned = [rung for rung in manifest.rungs if rung.method != "dense"]
    methods = ",".join(dict.fromkeys(rung.method for rung in pruned)) or "dense"
    keeps = ",".join(dict.fromkeys(f"{rung.keep:g}" for rung in pruned)) or "1"
    for kind in KINDS:
        rollout = Rollout(
            suite=config.suite,
            policy=config.policy or manifest.policy,
            engine="torch" if kind == "torch" else str(engine.folder),
            method=methods,
            keep=keeps,
            episodes=config.episodes,
            seed=config.seed,
            workers=config.workers,
            out=config.out / kind,
            resume=True,
            video=0,
        )
        with contextlib.redirect_stdout(sys.stderr):  # stdout is for the comparison
            roll_out(rollout)
    cells = compare(config.out)
    _show(config, {"schema": SCHEMA, "engine": str(engine.folder), "cells": cells})
    return 0 if all(cell["within_noise"] for cell in cells) else CHECK_FAILED


def compare(out: Path) -> list[dict[str, Any]]:
    """Success of torch and engine on the seeds that both have judged, cell by cell."""
    found = {kind: _judged(out / kind / "episodes.jsonl") for kind in KINDS}
    cells: dict[str, list[tuple[EpisodeRecord, EpisodeRecord]]] = {}
    for key, torch in found["torch"].items():
        if key in found["engine"]:
            cells.setdefault(str(torch.cell), []).append((torch, found["engine"][key]))
    return [_cell(name, pairs) for name, pairs in cells.items()]


def _judged(path: Path) -> dict[tuple[object, int], EpisodeRecord]:
    with EpisodeStore(path) as store:
        return {(r.cell, r.seed): r for r in store if r.outcome != "error"}


def _cell(name: str, pairs: list[tuple[EpisodeRecord, EpisodeRecord]]) -> dict[str, Any]:
    success = [
        [record.outcome == "success" for record in side] for side in zip(*pairs, strict=True)
    ]
    difference = paired_difference(success[1], success[0])
    low, high = difference.ci95
    same = sum((a.outcome, a.steps) == (b.outcome, b.steps) for a, b in pairs)
    return {
        "cell": name,
        "episodes": len(pairs),
        "torch_successes": sum(success[0]),
        "engine_successes": sum(success[1]),
        "same_outcome_and_steps": same,
        "difference": difference.difference,
        "ci95": [low, high],
        "within_noise": low <= 0 <= high,
    }


def _show(config: Verify, result: dict[str, Any]) -> None:
    if config.json:
        print(json.dumps(result, indent=2))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{result['engine']} beside torch, same seeds")
    for head in ("cell", "episodes", "torch", "engine", "same course", "difference", "95 %"):
        table.add_column(head, justify="left" if head == "cell" else "right")
    for cell in result["cells"]:
        low, high = cell["ci95"]
        table.add_row(
            cell["cell"],
            str(cell["episodes"]),
            str(cell["torch_successes"]),
            str(cell["engine_successes"]),
            str(cell["same_outcome_and_steps"]),
            f"{cell['difference'] * 100:+.1f} pt",
            f"{low * 100:+.1f} … {high * 100:+.1f}",
        )
    Console(highlight=False).print(table)
