"""What `leanvla vlm` checks before a model is loaded: names, numbers, data sets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from leanvla.commands.arguments import parse_options, parse_ratio, split_list
from leanvla.errors import UsageError
from pruning.kv_select import NAME, kv_select_named
from pruning.registry import make_method
from vlm.errors import TaskError
from vlm.runner import DENSE, Asked, Plan, take
from vlm.store import Cell
from vlm.tasks.registry import all_tasks, find_task
from vlm.types import ReadOptions

if TYPE_CHECKING:
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
        MissingDataError: for a data set that is not there.
    """
    options = ReadOptions(config.split, config.frames)
    methods = _methods(config)
    asked = []
    for name in split_list(config.tasks, "--tasks"):
        task = find_task(name)
        questions = take(task.read(config.data, options), config.limit)
        if not questions:
            raise TaskError(f"{config.data / name} holds no question of {name}: {task.where}")
        asked.append(Asked(task, questions))
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
    if name.partition(":")[0] == NAME:
        return kv_select_named(name, keep)
    return make_method(name, keep=keep, **fields)


def print_tasks() -> int:
    """One line per task, and what to put where."""
    for task in all_tasks():
        print(f"{task.name:<12} {task.about}\n{'':<12} {task.where}")
    return 0
