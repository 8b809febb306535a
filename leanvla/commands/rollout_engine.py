"""`--engine` of a verb: which cells run on an exported engine, and why others do not."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from leanvla.commands.arguments import parse_options
from leanvla.errors import EnvironmentFault, UsageError
from pruning.registry import make_method
from sim.rollout.types import DENSE, EXPERT, Cell

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from leanvla.commands.rollout import Rollout
    from policy.openvla.engine.choose import Wanted
    from sim.rollout.runner import Plan
    from sim.rollout.worker import WorkerSpec

AUTO, TORCH = "auto", "torch"


class Runtimes(NamedTuple):
    """What runs which cell.

    Attributes:
        engines: by cell, the engine's folder.
        notes: by cell, why it has none, in words.
    """

    engines: dict[Cell, str]
    notes: dict[Cell, str]


def with_engines(config: Rollout, plan: Plan, spec: WorkerSpec) -> WorkerSpec:
    """The spec with an engine for every cell that has one, and a reason for every other.

    Raises:
        UsageError, EnvironmentFault, EngineError: as `choose_runtimes`.
    """
    engines, notes = choose_runtimes(config.policy, config.engine, plan.cells, config.option)
    return replace(spec, policy=replace(spec.policy, engines=engines, notes=notes))


def choose_runtimes(
    policy: str, engine: str, cells: Iterable[Cell], option: Sequence[str]
) -> Runtimes:
    """An engine for every cell that has one, and a reason for every other.

    Args:
        policy: `--policy`.
        engine: `--engine`: `auto`, `torch`, or a folder.
        cells: what will run.
        option: fields of the pruning methods, as on the command line.

    Raises:
        UsageError: when `--engine` and `--policy` do not go together.
        EnvironmentFault: when a cell needs torch, and torch is missing.
        EngineError: for an engine that is damaged, of other weights, or without a rung.
    """
    from policy.registry import is_engine, resolve_policy

    if policy == EXPERT or ":" in policy:
        return _own(policy, engine, "it brings its own runtime")
    checkpoint = resolve_policy(policy)
    if is_engine(checkpoint):
        return _own(policy, engine, "it is an engine itself")
    wanted = {cell: _wanted(cell, option) for cell in cells}
    if engine == TORCH:
        found = Runtimes({}, dict.fromkeys(wanted, "asked for with --engine torch"))
    elif engine == AUTO:
        found = _choose(checkpoint, wanted)
        _tell(found.notes)
    else:
        found = Runtimes(_given(engine, checkpoint, wanted), {})
    if found.notes:
        _check_torch(found.notes)
    return found


def annotate(runs: Sequence[dict[str, Any]], notes: Mapping[Cell, str]) -> None:
    """Say in the metrics why a cell ran on torch, and why its speed stands beside nothing."""
    dense = next((run["engine"] for run in runs if run["method"] == DENSE), None)
    for run in runs:
        note = notes.get(Cell(run["method"], run["keep"]))
        run["engine_note"] = note
        if note and run["engine"] and dense and run["engine"] != dense:
            run["engine_note"] = f"{note}; its speed is not compared with dense on {dense}"


def _own(policy: str, engine: str, why: str) -> Runtimes:
    if engine != AUTO:
        raise UsageError(f"--engine {engine} does not go with {policy}: {why}")
    return Runtimes({}, {})


def _wanted(cell: Cell, option: Sequence[str]) -> Wanted:
    """A cell's method with the options of the run in its name."""
    from policy.openvla.engine.choose import Wanted

    if cell.method == DENSE:
        return Wanted(DENSE, 1.0, make_method(DENSE))
    fields = parse_options(option)
    name = ":".join([cell.method, *option])
    return Wanted(name, cell.keep, make_method(cell.method, keep=cell.keep, **fields))


def _choose(checkpoint: Path, wanted: Mapping[Cell, Wanted]) -> Runtimes:
    from policy.openvla.engine.choose import choose_engines

    choices = choose_engines(checkpoint, list(wanted.values()), _say)
    found = dict(zip(wanted, choices, strict=True))
    engines = {cell: str(choice.engine) for cell, choice in found.items() if choice.engine}
    notes = {cell: choice.reason for cell, choice in found.items() if choice.reason}
    return Runtimes(engines, notes)


def _given(engine: str, checkpoint: Path, wanted: Mapping[Cell, Wanted]) -> dict[Cell, str]:
    """The named engine runs every cell, or nothing runs."""
    from policy.openvla.engine.choose import check_engine

    folder = Path(engine)
    if not folder.is_dir():
        raise UsageError(f"--engine is {engine!r}: give {AUTO}, {TORCH}, or an engine's folder")
    check_engine(folder, checkpoint, wanted.values())
    return dict.fromkeys(wanted, str(folder))


def _check_torch(notes: Mapping[Cell, str]) -> None:
    if importlib.util.find_spec("torch") is None:
        cell, note = next(iter(notes.items()))
        raise EnvironmentFault(
            f"{cell} needs torch ({note}): pip install 'leanvla[torch]', or leave it out"
        )


def _tell(notes: Mapping[Cell, str]) -> None:
    for cell, note in notes.items():
        _say(f"{cell} runs on torch: {note}")


def _say(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)
