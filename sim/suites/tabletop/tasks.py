"""Four task families, 48 instructions, and what counts as success.

`left` and `right` are those of the third-person picture: the camera looks at the robot from the
front, so right is the world's +y.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sim.suites.tabletop.layout import (
    BIN_FLOOR,
    BIN_INNER,
    BLOCK_HALF,
    BLOCK_TOP,
    COLOURS,
    HALF_HEIGHT,
    PLATE_RADIUS,
    PLATE_TOP,
    RECEPTACLES,
    SHAPES,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sim.suites.tabletop.state import Snapshot

FAMILIES = ("pick", "put", "stack", "push")
SIDES = {"left": -1.0, "right": 1.0}
PICK_LIFT = 0.06
PUSH_DISTANCE = 0.08
WRONG_LIFT = 0.04
WRONG_SHOVE = 0.06
RELEASED_WIDTH = 0.045
RESTING_SPEED = 0.05
_PLACES = {"bin": "in the bin", "plate": "on the plate"}


@dataclass(frozen=True)
class Task:
    """What is asked for.

    Attributes:
        family: one of `FAMILIES`.
        colour: colour of the target; colours are unique in a scene.
        shape: shape of the target, `cube` or `cylinder`.
        goal: receptacle for `put` and `stack`, side for `push`, empty for `pick`.
    """

    family: str
    colour: str
    shape: str
    goal: str = ""

    @property
    def instruction(self) -> str:
        """The task in words."""
        thing = f"the {self.colour} {self.shape}"
        if self.family == "pick":
            return f"pick up {thing}"
        if self.family == "put":
            return f"put {thing} {_PLACES[self.goal]}"
        if self.family == "stack":
            return f"stack {thing} on the block"
        return f"push {thing} to the {self.goal}"


def _goals(family: str) -> tuple[str, ...]:
    return {"pick": ("",), "put": tuple(_PLACES), "stack": ("block",), "push": tuple(SIDES)}[family]


def tasks_of(things: Iterable[tuple[str, str]]) -> list[Task]:
    """Every task that a scene with these (colour, shape) objects allows, in a fixed order."""
    return [
        Task(family, colour, shape, goal)
        for colour, shape in things
        for family in FAMILIES
        for goal in _goals(family)
    ]


def _all_tasks() -> tuple[Task, ...]:
    """All tasks, families interleaved so that any run of seeds is balanced."""
    everything = tasks_of((c, s) for c in COLOURS for s in SHAPES)
    queues = {f: [t for t in everything if t.family == f] for f in FAMILIES}
    order = ("pick", "put", "push", "stack", "put", "push")
    return tuple(queues[order[i % 6]].pop(0) for i in range(len(everything)))


TASKS: tuple[Task, ...] = _all_tasks()
INSTRUCTIONS: tuple[str, ...] = tuple(t.instruction for t in TASKS)
BY_INSTRUCTION: Mapping[str, Task] = {t.instruction: t for t in TASKS}


def task_of_seed(seed: int) -> Task:
    """The task of a seed: consecutive seeds walk through all instructions in turn."""
    return TASKS[seed % len(TASKS)]


def receptacle_of(task: Task) -> str | None:
    """The receptacle that a task asks for, if any."""
    return task.goal if task.goal in RECEPTACLES else None


def is_success(task: Task, s: Snapshot) -> bool:
    """Whether the task is done in this state."""
    if task.family == "pick":
        lift = s.position[task.colour][2] - s.start[task.colour][2]
        return bool(lift >= PICK_LIFT and s.touched[task.colour] == 2)
    if task.family == "push":
        moved = s.position[task.colour] - s.start[task.colour]
        return bool(SIDES[task.goal] * moved[1] >= PUSH_DISTANCE and abs(moved[2]) < 0.015)
    released = s.touched[task.colour] == 0 and s.width > RELEASED_WIDTH
    return bool(released and s.speed[task.colour] < RESTING_SPEED and at_goal(task, s))


def at_goal(task: Task, s: Snapshot) -> bool:
    """Whether the target of `put` or `stack` is where it should end, held or not."""
    offset = s.position[task.colour] - s.receptacle[task.goal]
    reach = float(np.abs(offset[:2]).max())
    if task.goal == "bin":
        return reach < BIN_INNER and offset[2] < BIN_FLOOR + 0.04
    height = offset[2] - HALF_HEIGHT[task.shape]
    if task.goal == "plate":
        return bool(np.hypot(*offset[:2]) < PLATE_RADIUS and abs(height - PLATE_TOP) < 0.012)
    return bool(reach < BLOCK_HALF and abs(height - BLOCK_TOP) < 0.008)


def is_wrong_object(task: Task, s: Snapshot) -> bool:
    """Whether a movable other than the target was lifted, or shoved when pushing was asked."""
    for colour in s.position.keys() - {task.colour}:
        moved = s.position[colour] - s.start[colour]
        if moved[2] > WRONG_LIFT:
            return True
        if task.family == "push" and np.hypot(*moved[:2]) > WRONG_SHOVE:
            return True
    return False
