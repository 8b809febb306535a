"""`--engine` of `leanvla rollout`: which cells run on an exported engine, and why others do not."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from leanvla.commands.arguments import parse_options
from leanvla.errors import EnvironmentFault, UsageError
from pruning.registry import make_method
from sim.rollout.types import DENSE, EXPERT, Cell

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from leanvla.commands.rollout import Rollout
    from policy.openvla.engine.choose import Wanted
    from sim.rollout.runner import Plan
    from sim.rollout.worker import WorkerSpec

AUTO, TORCH = "auto", "torch"


class Asked(Protocol):
    """What the command line says about a policy and what runs it."""

    @property
    def policy(self) -> str:
        """The policy's name or folder."""

    @property
    def engine(self) -> str:
        """`auto`, `torch`, or an engine's folder."""

    @property
    def option(self) -> tuple[str, ...]:
        """Fields of the pruning methods."""


def with_engines(config: Rollout, plan: Plan, spec: WorkerSpec) -> WorkerSpec:
    """The spec with an engine for every cell that has one, and a reason for every other.

    Raises:
        UsageError, EnvironmentFault, EngineError: as `find_engines`.
    """
    engines, notes = find_engines(config, plan.cells)
    return replace(spec, policy=replace(spec.policy, engines=engines, notes=notes))


def find_engines(config: Asked, cells: Sequence[Cell]) -> tuple[dict[Cell, str], dict[Cell, str]]:
    """By cell, the engine's folder, or why it has none; a policy with its own runtime has neither.

    Raises:
        UsageError: when `--engine` and `--policy` do not go together.
        EnvironmentFault: when a cell needs torch, and torch is missing.
        EngineError: for an engine that is damaged, of other weights, or without a rung.
    """
    from policy.registry import is_engine, resolve_policy

    if config.policy == EXPERT or ":" in config.policy:
        _refuse(config, "it brings its own runtime")
        return {}, {}
    checkpoint = resolve_policy(config.policy)
    if is_engine(checkpoint):
        _refuse(config, "it is an engine itself")
        return {}, {}
    wanted = {cell: wanted_cell(cell, config) for cell in cells}
    if config.engine == TORCH:
        engines: dict[Cell, str] = {}
        notes = dict.fromkeys(cells, "asked for with --engine torch")
    elif config.engine == AUTO:
        engines, notes = _choose(checkpoint, wanted)
        _tell(notes)
    else:
        engines, notes = given_engine(config.engine, checkpoint, wanted), {}
    if notes:
        _check_torch(notes)
    return engines, notes


def annotate(runs: Sequence[dict[str, Any]], notes: Mapping[Cell, str]) -> None:
    """Say in the metrics why a cell ran on torch, and why its speed stands beside nothing."""
    dense = next((run["engine"] for run in runs if run["method"] == DENSE), None)
    for run in runs:
        note = notes.get(Cell(run["method"], run["keep"]))
        run["engine_note"] = note
        if note and run["engine"] and dense and run["engine"] != dense:
            run["engine_note"] = f"{note}; its speed is not compared with dense on {dense}"


def _refuse(config: Asked, why: str) -> None:
    if config.engine != AUTO:
        raise UsageError(f"--engine {config.engine} does not go with {config.policy}: {why}")


def wanted_cell(cell: Cell, config: Asked) -> Wanted:
    """A cell's method with the options of the run in its name."""
    from policy.openvla.engine.choose import Wanted

    if cell.method == DENSE:
        return Wanted(DENSE, 1.0, make_method(DENSE))
    fields = parse_options(config.option)
    name = ":".join([cell.method, *config.option])
    return Wanted(name, cell.keep, make_method(cell.method, keep=cell.keep, **fields))


def _choose(
    checkpoint: Path, wanted: Mapping[Cell, Wanted]
) -> tuple[dict[Cell, str], dict[Cell, str]]:
    from policy.openvla.engine.choose import choose_engines

    choices = choose_engines(checkpoint, list(wanted.values()), _say)
    found = dict(zip(wanted, choices, strict=True))
    engines = {cell: str(choice.engine) for cell, choice in found.items() if choice.engine}
    return engines, {cell: choice.reason for cell, choice in found.items() if choice.reason}


def given_engine(engine: str, checkpoint: Path, wanted: Mapping[Cell, Wanted]) -> dict[Cell, str]:
    """The named engine runs every cell, or nothing runs.

    Raises:
        UsageError: when it is no folder.
        EngineError: when it is damaged, of other weights, or lacks a rung.
    """
    from engines.manifest import check_weights_of, read_manifest
    from policy.openvla.checkpoint import weights_sha256
    from policy.openvla.config import load_config
    from policy.openvla.engine.rungs import find_rung

    folder = Path(engine)
    if not folder.is_dir():
        raise UsageError(f"--engine is {engine!r}: give {AUTO}, {TORCH}, or an engine's folder")
    manifest = read_manifest(folder)
    check_weights_of(folder, manifest, weights_sha256(checkpoint))
    for cell in wanted.values():
        find_rung(manifest, cell.method, load_config(checkpoint))
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
