"""What the Meta-World suites show and take, and how a seed becomes an episode."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from policy.types import ActionSpec, Observation, ObservationSpec
from sim.render import get_profile
from sim.suites.base import SuiteSpec
from sim.suites.instances import GRIPPER

if TYPE_CHECKING:
    from jaxtyping import Float32

VIEWS = ("corner4", "gripperPOV")
VIEW_SIZE = 96
RATE_HZ = 80.0
HORIZON = 8
MAX_STEPS = 500
RENDER_PROFILE = "fast"
STATE_NAMES = ("hand_x [m]", "hand_y [m]", "hand_z [m]", "gripper [1]")
ACTION_NAMES = ("dx [0.01 m]", "dy [0.01 m]", "dz [0.01 m]", "gripper [-1..1]")

MT10 = (
    *("reach", "push", "pick-place", "door-open", "drawer-open", "drawer-close"),
    *("button-press-topdown", "peg-insert-side", "window-open", "window-close"),
)
WORDS = {
    "assembly": "put the ring over the peg",
    "basketball": "dunk the ball into the basket",
    "bin-picking": "move the block into the other bin",
    "box-close": "put the lid on the box",
    "button-press-topdown": "press the button from above",
    "button-press-topdown-wall": "press the button behind the wall from above",
    "button-press": "press the button",
    "button-press-wall": "reach around the wall and press the button",
    "coffee-button": "press the button of the coffee machine",
    "coffee-pull": "pull the mug away from the coffee machine",
    "coffee-push": "push the mug under the coffee machine",
    "dial-turn": "turn the dial",
    "disassemble": "lift the ring off the peg",
    "door-close": "close the door",
    "door-lock": "lock the door",
    "door-open": "open the door",
    "door-unlock": "unlock the door",
    "hand-insert": "put the hand into the hole",
    "drawer-close": "close the drawer",
    "drawer-open": "open the drawer",
    "faucet-open": "open the faucet",
    "faucet-close": "close the faucet",
    "hammer": "hammer the nail into the wall",
    "handle-press-side": "press the handle down from the side",
    "handle-press": "press the handle down",
    "handle-pull-side": "pull the handle up from the side",
    "handle-pull": "pull the handle up",
    "lever-pull": "pull the lever up",
    "peg-insert-side": "insert the peg into the hole from the side",
    "pick-place-wall": "pick up the puck and place it behind the wall",
    "pick-out-of-hole": "pick the puck out of the hole",
    "reach": "reach the goal",
    "push-back": "push the puck back to the goal",
    "push": "push the puck to the goal",
    "pick-place": "pick up the puck and place it at the goal",
    "plate-slide": "slide the plate into the cabinet",
    "plate-slide-side": "slide the plate sideways into the cabinet",
    "plate-slide-back": "slide the plate out of the cabinet",
    "plate-slide-back-side": "slide the plate sideways out of the cabinet",
    "peg-unplug-side": "pull the peg out sideways",
    "soccer": "kick the ball into the goal",
    "stick-push": "push the box with the stick",
    "stick-pull": "pull the box with the stick",
    "push-wall": "push the puck around the wall to the goal",
    "reach-wall": "reach around the wall to the goal",
    "shelf-place": "pick up the puck and place it on the shelf",
    "sweep-into": "sweep the puck into the hole",
    "sweep": "sweep the puck off the table",
    "window-open": "open the window",
    "window-close": "close the window",
}
"""Meta-World names its tasks and says no sentence; these are ours."""

ROLES = ("object", "gripper", "goal")
GOAL_MARK = "goal mark"
PICKED = frozenset(
    (
        *("assembly", "basketball", "bin-picking", "box-close", "disassemble", "hammer"),
        *("peg-insert-side", "peg-unplug-side", "pick-out-of-hole", "pick-place"),
        *("pick-place-wall", "shelf-place", "stick-push", "stick-pull"),
    )
)
"""Tasks whose object is taken into the hand; the others push, pull, press or turn it."""
_OBJECTS = {
    **dict.fromkeys(("assembly", "disassemble"), "RoundNut"),
    "basketball": "bsktball",
    "box-close": "boxbodytop",
    **dict.fromkeys(("button-press-topdown", "button-press-topdown-wall"), "button"),
    **dict.fromkeys(("button-press", "button-press-wall"), "button"),
    "coffee-button": "cmbutton",
    "dial-turn": "dial",
    **dict.fromkeys(("door-close", "door-open"), "door_link"),
    **dict.fromkeys(("door-lock", "door-unlock"), "lock_link"),
    **dict.fromkeys(("drawer-close", "drawer-open"), "drawer_link"),
    **dict.fromkeys(("faucet-open", "faucet-close"), "faucet_link2"),
    "hammer": "hammerbody",
    **dict.fromkeys(("handle-press-side", "handle-press"), "handle_link"),
    **dict.fromkeys(("handle-pull-side", "handle-pull"), "handle_link"),
    "lever-pull": "lever_link1",
    "peg-insert-side": "peg",
    "peg-unplug-side": "plug1",
    **dict.fromkeys(("plate-slide", "plate-slide-side"), "puck_channel"),
    **dict.fromkeys(("plate-slide-back", "plate-slide-back-side"), "puck_channel"),
    "soccer": "soccer_ball",
    **dict.fromkeys(("stick-push", "stick-pull"), "stick"),
    **dict.fromkeys(("window-open", "window-close"), "windowb_a"),
}
"""The body that a task moves, where Meta-World does not call it `obj`."""
_NO_OBJECT = frozenset(("reach", "reach-wall", "hand-insert"))
_PLACES = {
    "assembly": "peg",
    "basketball": "basket_goal",
    "bin-picking": "bin_goal",
    "box-close": "boxbody",
    "coffee-push": "coffee_machine",
    "hammer": "nail_link",
    "peg-insert-side": "box",
    **dict.fromkeys(("plate-slide", "plate-slide-side"), "puck_goal"),
    "shelf-place": "shelf",
    "soccer": "goal_whole",
}
"""The thing that the object should come to; other goals are marks that Meta-World draws."""
_NO_GOAL = frozenset(
    (
        *(task for task in WORDS if task.startswith(("button-", "handle-"))),
        *("coffee-button", "dial-turn", "disassemble", "door-lock", "door-unlock", "sweep"),
    )
)
"""Meta-World draws no mark of these tasks' goals, or one inside something or out of sight."""


def tasks_of(suite: str) -> tuple[str, ...]:
    """The tasks of a suite, in the benchmark's order."""
    return MT10 if suite == "metaworld_mt10" else tuple(WORDS)


def task_of(suite: str, seed: int) -> str:
    """The task of a seed: consecutive seeds walk through all of them in turn."""
    tasks = tasks_of(suite)
    return tasks[seed % len(tasks)]


def roles_of(task: str) -> dict[str, str]:
    """Instances of what a task moves, of the gripper, and of where the first should go."""
    roles = {} if task in _NO_OBJECT else {"object": _OBJECTS.get(task, "obj")}
    roles["gripper"] = GRIPPER
    return roles if task in _NO_GOAL else {**roles, "goal": _PLACES.get(task, GOAL_MARK)}


def metaworld_spec(suite: str, render_profile: str | None = None) -> SuiteSpec:
    """The spec of a suite; without a render profile, that of `fast`.

    Raises:
        ValueError: on an unknown render profile, or on `lowpoly`: its meshes are few already.
    """
    profile = get_profile(render_profile or RENDER_PROFILE)
    if profile.max_faces is not None:
        raise ValueError(f"{suite} has no render profile {profile.name}: choose default or fast")
    return SuiteSpec(
        name=suite,
        observation=ObservationSpec(VIEWS, STATE_NAMES),
        action=ActionSpec(ACTION_NAMES, HORIZON, RATE_HZ, rotation="none"),
        max_steps=MAX_STEPS,
        render_profile=profile.name,
        roles=ROLES,
        scenes=len(tasks_of(suite)),
    )


def make_example() -> tuple[Observation, Float32[np.ndarray, " 4"]]:
    """An observation and an action in the form that these suites give and take."""
    rng = np.random.default_rng(0)
    frames = tuple(rng.integers(0, 256, (VIEW_SIZE, VIEW_SIZE, 3), dtype=np.uint8) for _ in VIEWS)
    state = np.array([0.0, 0.6, 0.2, 1.0], np.float32)
    return Observation(frames, state, WORDS["reach"]), np.array([0, 0, 0, -1], np.float32)
