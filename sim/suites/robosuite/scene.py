"""One robosuite task as an environment that is compiled once and reset in milliseconds."""

from __future__ import annotations

import importlib
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from sim.meshes import decimate_xml
from sim.suites.robosuite.spec import SETTLE_ACTION, SETTLE_STEPS
from sim.suites.tabletop.spec import RATE_HZ

if TYPE_CHECKING:
    from jaxtyping import Float64

    from sim.render import RenderProfile

_MODULES = {
    "Lift": "lift",
    "Stack": "stack",
    "PickPlace": "pick_place",
    "NutAssembly": "nut_assembly",
    "Door": "door",
    "Wipe": "wipe",
}
MODEL_SEED = 0  # what is drawn while the model is compiled: the cube's size


def build(scene: str, profile: RenderProfile) -> Any:
    """The environment called `scene`, reset once.

    Its physics, controller (OSC_POSE), gripper and predicates are robosuite's own. What it would
    compute for observations is left out.
    """
    module = importlib.import_module(f"robosuite.environments.manipulation.{_MODULES[scene]}")
    kind = getattr(module, scene)
    faces = profile.max_faces
    reduce = partial(decimate_xml, max_faces=faces, keep_texture=True) if faces else None

    def initialize(self: Any, xml_string: str | None = None) -> None:
        if reduce is not None:
            self.set_xml_processor(reduce)
        kind._initialize_sim(self, xml_string)

    def load(self: Any) -> None:
        kind._load_model(self)
        # robosuite asks for 5000 contacts, 1.3 GB of arena; these scenes have a few hundred.
        size = self.model.root.find("size")
        size.attrib.clear()
        size.set("memory", "64M")

    parts: dict[str, Any] = {"_initialize_sim": initialize, "_load_model": load}
    parts["_setup_observables"] = lambda self: {}
    # robosuite keeps a table of classes by name: this one must not take the place of its own.
    env = type(f"LeanVLA{scene}", (kind,), parts)(
        robots="Panda",
        use_camera_obs=False,
        use_object_obs=False,
        has_renderer=False,
        has_offscreen_renderer=False,
        renderer="mujoco",
        control_freq=int(RATE_HZ),
        hard_reset=False,
        ignore_done=True,
        lite_physics=True,
        seed=MODEL_SEED,
    )
    env.reset()
    return env


def begin(env: Any, seed: int) -> None:
    """Lay out the scene of `seed`, and let it come to rest.

    Samplers, robot and arena share one generator, so a seed is the same episode whatever ran
    before it.
    """
    env.rng.bit_generator.state = np.random.default_rng(seed).bit_generator.state
    env.reset()
    for _ in range(SETTLE_STEPS):
        step(env, np.array(SETTLE_ACTION))


def step(env: Any, action: np.ndarray) -> None:
    """One control step; a tool without fingers takes no gripper command."""
    env.step(action[: env.action_dim])


def save_control(env: Any) -> Float64[np.ndarray, " values"]:
    """What the controller goes on from: the hand's goal, and the command of the fingers."""
    arm, hand = _control(env)
    return np.concatenate([arm.goal_pos, arm.goal_ori.ravel(), hand.current_action])


def load_control(env: Any, saved: Float64[np.ndarray, " values"]) -> None:
    """Let it go on from what `save_control` gave."""
    arm, hand = _control(env)
    arm.goal_pos, arm.goal_ori = saved[:3].copy(), saved[3:12].reshape(3, 3).copy()
    hand.current_action = saved[12:].copy()


def _control(env: Any) -> tuple[Any, Any]:
    robot = env.robots[0]
    return robot.composite_controller.part_controllers["right"], robot.gripper["right"]
