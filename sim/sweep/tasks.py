"""Which seeds of a suite ask for which tasks. Starts no simulator."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pruning.spelling import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    Task = str | int


def seeds_of(suite: str, seeds: Iterable[int], tasks: Sequence[Task]) -> tuple[int, ...]:
    """Those of the seeds whose task is one of `tasks`; all of them when none is named.

    Args:
        suite: its name.
        seeds: seeds to choose from.
        tasks: task families of `tabletop`; names of robosuite's and Meta-World's tasks; names of
            LIBERO's, or their numbers from 0.

    Raises:
        ValueError: for a task that the suite does not have, with the nearest one, or when no seed
            is left.
    """
    seeds = tuple(seeds)
    if not tasks:
        return seeds
    known = _tasks(suite)
    for task in tasks:
        if task not in known and task not in range(_numbered(suite)):
            hint = did_you_mean(str(task), known, ", ") or ":"
            choice = ", ".join(known)
            if _numbered(suite):
                choice = f"0 to {_numbered(suite) - 1}, or names of the benchmark's tasks"
            raise ValueError(f"suite {suite} has no task {task!r}{hint} choose from {choice}")
    wanted = {known[task] if isinstance(task, int) else task for task in tasks}
    found = tuple(seed for seed in seeds if _task_of(suite, seed) in wanted)
    if not found:
        raise ValueError(f"no seed from {seeds[0]} to {seeds[-1]} asks for {tasks} of {suite}")
    return found


def _numbered(suite: str) -> int:
    """How many tasks may be named by a number; LIBERO's alone."""
    return len(_tasks(suite)) if suite.startswith("libero_") else 0


def _tasks(suite: str) -> tuple[str, ...]:
    if suite == "tabletop":
        from sim.suites.tabletop.tasks import FAMILIES

        return tuple(FAMILIES)
    if suite.startswith("robosuite"):
        from sim.suites.robosuite.spec import tasks_of

        return tuple(task.name for task in tasks_of(suite))
    if suite.startswith("metaworld"):
        from sim.suites.metaworld.spec import tasks_of as names_of

        return names_of(suite)
    from sim.suites.libero.spec import TASKS, task_names

    if suite not in TASKS:
        raise ValueError(f"the tasks of suite {suite} are not known: leave `tasks` out")
    return task_names(suite)


def _task_of(suite: str, seed: int) -> str:
    if suite == "tabletop":
        from sim.suites.tabletop.tasks import task_of_seed

        return task_of_seed(seed).family
    if suite.startswith(("robosuite", "metaworld")):  # consecutive seeds walk through all tasks
        known = _tasks(suite)
        return known[seed % len(known)]
    from sim.suites.libero.spec import place_of

    return _tasks(suite)[place_of(suite, seed).task]
