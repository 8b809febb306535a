"""Tasks by name; each is imported when it is asked for."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from pruning.spelling import did_you_mean
from vlm.errors import TaskError

if TYPE_CHECKING:
    from vlm.tasks.base import Task

TASKS = {
    "scene_qa": "scene_qa",
    "scene_clips": "scene_qa",
    "needle": "scene_qa",
    "pope": "pope",
    "gqa": "gqa",
    "vqav2": "vqav2",
    "textvqa": "textvqa",
    "mme": "mme",
    "mmbench": "mmbench",
    "scienceqa": "scienceqa",
    "seedbench": "seedbench",
    "chartqa": "chartqa",
    "videomme": "videomme",
    "mvbench": "mvbench",
    "egoschema": "egoschema",
}
"""Name on the command line, and the module of this package whose `TASKS` has it."""


def find_task(name: str) -> Task:
    """The task called `name`.

    Raises:
        TaskError: for an unknown one; it lists the known and the nearest.
    """
    if name not in TASKS:
        hint = did_you_mean(name, TASKS, ", ") or ":"
        raise TaskError(f"unknown task {name!r}{hint} choose from {', '.join(TASKS)}")
    module = importlib.import_module(f"vlm.tasks.{TASKS[name]}")
    return next(task for task in module.TASKS if task.name == name)


def all_tasks() -> list[Task]:
    """Every task, in order of the table."""
    return [find_task(name) for name in TASKS]
