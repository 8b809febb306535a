"""Which part of its task an episode is in, from the present state alone.

No history: an object that slips out of the hand takes the episode back to `grasp`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sim.suites.phases import picking
from sim.suites.tabletop.tasks import Task, at_goal

if TYPE_CHECKING:
    from sim.suites.tabletop.state import Snapshot

PHASES = ("reach", "grasp", "push", "carry", "place")
NEAR = 0.06  # metres between hand and object, or object and goal, over the table
LOW = 0.05  # metres of the hand above the object


def phase_of(task: Task, s: Snapshot) -> str:
    """The phase of a task.

    `reach`: the hand is not at the object yet. `grasp`: it is, and does not hold it. `push`: it is,
    and should shove it. `carry`: the object is held, away from its goal. `place`: it is held over
    the goal, or lies there and the hand has still to let go or leave.
    """
    target = s.position[task.colour]
    if task.family == "push":
        behind = float(np.hypot(*(s.eef - target)[:2])) < 2 * NEAR and s.eef[2] - target[2] < LOW
        return "push" if behind else "reach"
    brought = task.family != "pick"
    return picking(
        held=s.touched[task.colour] == 2,
        near=float(np.linalg.norm(s.eef - target)) < NEAR,
        over=brought and _over_goal(task, s),
        rests=brought and at_goal(task, s),
    )


def _over_goal(task: Task, s: Snapshot) -> bool:
    offset = s.position[task.colour] - s.receptacle[task.goal]
    return float(np.hypot(*offset[:2])) < NEAR
