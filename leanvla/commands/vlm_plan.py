"""What `leanvla vlm` checks before a model is loaded: names, numbers, data sets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from leanvla.commands.arguments import parse_options, parse_ratio, split_list
from leanvla.errors import UsageError
from pruning.base import MethodError
from pruning.kv_select import ABOUT, EXAMPLE, NAME, kv_select_named
from pruning.registry import WRAPPERS, all_methods, make_method
from pruning.spelling import did_you_mean
from vlm.errors import MissingDataError, TaskError
from vlm.runner import DENSE, Asked, Plan, take
from vlm.store import Cell
from vlm.tasks.registry import all_tasks, find_task
from vlm.types import ReadOptions

if TYPE_CHECKING:
    from pathlib import Path

    from leanvla.commands.vlm import VlmConfig
    from vlm.pruned import Chooser


def check_numbers(config: VlmConfig) -> None:
    """Refuse numbers that make no sense.

    Raises:
        UsageError: naming the flag.
    """
    for name, low in {"limit": 0, "frames": 1, "threads": 1, "pictures": 0}.items():
        if getattr(config, name) < low:
            raise UsageError(f"--{name} is {getattr(config, name)}: give {low} or more")


def make_plan(config: VlmConfig) -> Plan:
    """Cells and questions.

    Raises:
        UsageError: for a list that is none, or a task without a question.
        MethodError: for an unknown method or field.
        BudgetError: for a keep ratio outside (0, 1].
        TaskError: for an unknown task, or a file that is not in the published format.
        MissingDataError: naming every data set that is not there.
    """
    options = ReadOptions(config.split, config.frames)
    methods = _methods(config)
    asked, missing = [], []
    for name in split_list(config.tasks, "--tasks"):
        task = find_task(name)
        try:
            questions = take(task.read(config.data, options), config.limit)
        except MissingDataError as error:
            missing.append(str(error))
            continue
        if not questions:
            raise TaskError(f"{config.data / name} holds no question of {name}: {task.where}")
        asked.append(Asked(task, questions))
    if missing:
        raise MissingDataError(
            f"{'; '.join(missing)} (DATA is the folder given by --data, {config.data})"
        )
    return Plan(methods, tuple(asked))


def _methods(config: VlmConfig) -> dict[Cell, Chooser]:
    """Dense first, then every method at every budget."""
    fields = parse_options(config.option)
    keeps = [parse_ratio(text) for text in split_list(config.keep, "--keep")]
    cells: dict[Cell, Chooser] = {DENSE: make_method("dense", keep=1.0)}
    for name in split_list(config.method, "--method"):
        if name != DENSE.method:
            for keep in keeps:
                cells[Cell(name, keep)] = _method(name, keep, fields)
    return cells


def _method(name: str, keep: float, fields: dict[str, Any]) -> Chooser:
    plain = name.partition(":")[0]
    if plain == NAME:
        return kv_select_named(name, keep)
    hint = did_you_mean(plain, [*all_methods(), *WRAPPERS, NAME], ", ")
    if NAME in hint:
        raise MethodError(f"unknown pruning method {plain!r}{hint} {EXAMPLE}: {ABOUT}")
    return make_method(name, keep=keep, **fields)


def print_tasks(data: Path) -> int:
    """One line per task, and what to put where; then where methods are listed."""
    for task in all_tasks():
        print(f"{task.name:<12} {task.about}\n{'':<12} {task.where}")
    print(f"\nDATA is the folder given by --data: {data}")
    print(f"Methods: `leanvla methods`, and here alone {EXAMPLE}: {ABOUT}")
    return 0
