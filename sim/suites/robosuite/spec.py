"""What the robosuite suites show and take, and how a seed becomes an episode. No simulator here."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from policy.types import ActionSpec, Observation, ObservationSpec
from sim.render import get_profile
from sim.suites.base import SuiteSpec
from sim.suites.instances import GRIPPER
from sim.suites.tabletop.spec import ACTION_NAMES, HORIZON, RATE_HZ, ROLES, STATE_NAMES, VIEWS

if TYPE_CHECKING:
    from jaxtyping import Float32

VIEW_SIZE = 96
RENDER_PROFILE = "lowpoly"
SETTLE_STEPS = 5
SETTLE_ACTION = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -1.0)


class Task(NamedTuple):
    """One task.

    Attributes:
        name: name in results.
        scene: robosuite's environment.
        instruction: the task in words.
        target: what is asked for, as the scene calls it.
        goal: where it should go; empty when it is moved alone.
        max_steps: control steps after which an episode has failed.
        expert: whether the scripted expert does it.
        others: what else could be asked for in this scene.
    """

    name: str
    scene: str
    instruction: str
    target: str
    goal: str = ""
    max_steps: int = 200
    expert: bool = False
    others: tuple[str, ...] = ()


def _groceries() -> list[Task]:
    words = {
        thing: f"pick up the {thing} and place it in its bin"
        for thing in ("milk", "bread", "cereal", "can")
    }
    return [
        Task(
            *(thing, "PickPlace", text, thing.capitalize(), f"{thing} bin", 300, True),
            others=tuple(words[name] for name in words if name != thing),
        )
        for thing, text in words.items()
    ]


def _nuts() -> list[Task]:
    words = {shape: f"put the {shape} nut on the {shape} peg" for shape in ("square", "round")}
    return [
        Task(
            *(f"{shape}_nut", "NutAssembly", text, f"{shape.capitalize()}Nut"),
            *(f"{shape} peg", 400, True),
            others=tuple(words[name] for name in words if name != shape),
        )
        for shape, text in words.items()
    ]


GROUPS: dict[str, tuple[Task, ...]] = {
    "lift": (Task("lift", "Lift", "pick up the red cube", "cube", "", 150, True),),
    "stack": (
        Task(
            *("stack", "Stack", "stack the red cube on the green cube", "cubeA", "cubeB"),
            *(250, True),
            others=("stack the green cube on the red cube",),
        ),
    ),
    "pick_place": tuple(_groceries()),
    "nut_assembly": tuple(_nuts()),
    "door": (Task("door", "Door", "open the door", "handle", "", 300),),
    "wipe": (Task("wipe", "Wipe", "wipe the dirt off the table", "dirt", "", 500),),
}
SUITES = ("robosuite", *(f"robosuite_{group}" for group in GROUPS))


def tasks_of(suite: str) -> tuple[Task, ...]:
    """The tasks of a suite: all of them, or one group's."""
    if suite == "robosuite":
        return tuple(task for tasks in GROUPS.values() for task in tasks)
    return GROUPS[suite.removeprefix("robosuite_")]


def task_of(suite: str, seed: int) -> Task:
    """The task of a seed: consecutive seeds walk through all of them in turn."""
    tasks = tasks_of(suite)
    return tasks[seed % len(tasks)]


def roles_of(task: Task) -> dict[str, str]:
    """Instances of what is asked for, of the gripper, and of where the first should go.

    A door is opened by its handle, which is its goal; a bin is all four of its compartments.
    """
    goals = {
        "cubeA": "cubeB",
        **dict.fromkeys(("Milk", "Bread", "Cereal", "Can"), "bin2"),
        **{"SquareNut": "peg1", "RoundNut": "peg2", "handle": "handle"},
    }
    asked = "door" if task.scene == "Door" else task.target
    roles = {"object": asked, "gripper": GRIPPER}
    return {**roles, "goal": goals[task.target]} if task.target in goals else roles


def robosuite_spec(suite: str, render_profile: str | None = None) -> SuiteSpec:
    """The spec of a suite; without a render profile, that of `lowpoly`.

    Raises:
        ValueError: on an unknown render profile.
    """
    told = {role: None for task in tasks_of(suite) for role in roles_of(task)}
    return SuiteSpec(
        name=suite,
        observation=ObservationSpec(VIEWS, STATE_NAMES),
        action=ActionSpec(ACTION_NAMES, HORIZON, RATE_HZ),
        max_steps=max(task.max_steps for task in tasks_of(suite)),
        render_profile=get_profile(render_profile or RENDER_PROFILE).name,
        roles=tuple(sorted(told, key=ROLES.index)),
        saves=not any(task.scene == "Wipe" for task in tasks_of(suite)),  # dirt is in its model
        scenes=len(tasks_of(suite)),
    )


def make_example() -> tuple[Observation, Float32[np.ndarray, " 7"]]:
    """An observation and an action in the form that these suites give and take."""
    rng = np.random.default_rng(0)
    frames = tuple(rng.integers(0, 256, (VIEW_SIZE, VIEW_SIZE, 3), dtype=np.uint8) for _ in VIEWS)
    state = np.array([-0.1, 0.0, 1.0, 3.14, 0.0, 0.0, 0.04, -0.04], np.float32)
    return Observation(frames, state, "pick up the red cube"), np.array(SETTLE_ACTION, np.float32)
