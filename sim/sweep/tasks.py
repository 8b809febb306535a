"""Which seeds of a suite ask for which tasks. Starts no simulator."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    Task = str | int


def seeds_of(suite: str, seeds: Iterable[int], tasks: Sequence[Task]) -> tuple[int, ...]:
    """Those of the seeds whose task is one of `tasks`; all of them when none is named.

    Args:
        suite: its name.
        seeds: seeds to choose from.
        tasks: task families of `tabletop`; names of robosuite's and Meta-World's tasks; numbers of
            the tasks of a LIBERO suite, from 0.

    Raises:
        ValueError: for a task that the suite does not have, or when no seed is left.
    """
    seeds = tuple(seeds)
    if not tasks:
        return seeds
    known = _tasks(suite)
    for task in tasks:
        if task not in known:
            raise ValueError(
                f"suite {suite} has no task {task!r}: choose from {', '.join(map(str, known))}"
            )
    found = tuple(seed for seed in seeds if _task_of(suite, seed) in tasks)
    if not found:
        raise ValueError(f"no seed from {seeds[0]} to {seeds[-1]} asks for {tasks} of {suite}")
    return found


def _tasks(suite: str) -> tuple[Task, ...]:
    if suite == "tabletop":
        from sim.suites.tabletop.tasks import FAMILIES

        return tuple(FAMILIES)
    if suite.startswith("robosuite"):
        from sim.suites.robosuite.spec import tasks_of

        return tuple(task.name for task in tasks_of(suite))
    if suite.startswith("metaworld"):
        from sim.suites.metaworld.spec import tasks_of as names_of

        return names_of(suite)
    from sim.suites.libero.spec import TASKS

    if suite not in TASKS:
        raise ValueError(f"the tasks of suite {suite} are not known: leave `tasks` out")
    return tuple(range(TASKS[suite]))


def _task_of(suite: str, seed: int) -> Task:
    if suite == "tabletop":
        from sim.suites.tabletop.tasks import task_of_seed

        return task_of_seed(seed).family
    if suite.startswith(("robosuite", "metaworld")):  # consecutive seeds walk through all tasks
        known = _tasks(suite)
        return known[seed % len(known)]
    from sim.suites.libero.spec import place_of

    return place_of(suite, seed).task
