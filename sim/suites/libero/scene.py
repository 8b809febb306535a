"""One LIBERO task as a robosuite environment. Runs in the environment of LIBERO only."""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
import types
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from sim.meshes import decimate_xml
from sim.suites.libero.convert import package
from sim.suites.libero.spec import RATE_HZ, VIEW_SIZE, VIEWS

if TYPE_CHECKING:
    from pathlib import Path

    from sim.render import RenderProfile

SCENE_PREFIX = re.compile(r"^[A-Z_]+SCENE\d+_")
ARM_SIGMA_RAD = 0.02  # robosuite's own noise on the first pose
SCENE_SEED = 0  # the published evaluations call env.seed(0); it places what no joint holds


class Task(NamedTuple):
    """One task of a suite."""

    name: str
    bddl: Path

    @property
    def instruction(self) -> str:
        """What policies are told: the name's words, as the benchmark's `Task.language` has them.

        The problem files' own sentences differ from it in 29 of 130 tasks.
        """
        return SCENE_PREFIX.sub("", self.name).replace("_", " ")


def tasks_of(suite: str) -> list[Task]:
    """The tasks in the benchmark's order. Its own loader is left alone: it imports torch."""
    path = package() / "benchmark" / "libero_suite_task_map.py"
    spec = importlib.util.spec_from_file_location("libero_suite_task_map", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is missing")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    bddl = package() / "bddl_files" / suite
    return [Task(name, bddl / f"{name}.bddl") for name in module.libero_task_map[suite]]


def load_benchmark(assets: Path, config: Path) -> None:
    """Import the benchmark's scenes and predicates with these assets.

    Its package asks for a config file on stdin, fetches assets, and imports plotting and vector
    environments. None of that happens here: the config is written first, the assets' place is said,
    and the one `__init__` that imports the rest is stepped over.
    """
    folders = {"benchmark_root": package(), "assets": assets, "datasets": config / "none"}
    folders |= {"bddl_files": package() / "bddl_files", "init_states": package() / "init_files"}
    config.mkdir(parents=True, exist_ok=True)
    lines = "".join(f"{name}: {str(path)!r}\n" for name, path in folders.items())
    (config / "config.yaml").write_text(lines)
    libero: Any = importlib.import_module("libero.libero")
    libero._assets_path_cache = str(assets)
    name = "libero.libero.envs"
    envs = types.ModuleType(name)
    envs.__path__ = [str(package() / "envs")]
    sys.modules[name] = envs
    importlib.import_module(f"{name}.problems")


def build(task: Task, profile: RenderProfile) -> Any:
    """The environment of a task, reset once."""
    import robosuite

    base: Any = importlib.import_module("libero.libero.envs.bddl_base_domain")
    parser: Any = importlib.import_module("libero.libero.envs.bddl_utils")
    kind = base.TASK_MAPPING[parser.get_problem_info(str(task.bddl))["problem_name"]]
    faces = profile.max_faces
    reduce = partial(decimate_xml, max_faces=faces, keep_texture=True) if faces else str

    def initialize(self: Any, xml_string: str | None = None) -> None:
        kind._initialize_sim(self, reduce(xml_string or self.model.get_xml()))

    # A class of the same name: a problem file is refused by any other.
    scene = type(kind.__name__, (kind,), {"_initialize_sim": initialize})
    np.random.seed(SCENE_SEED)
    env = scene(
        str(task.bddl),
        robots=["Panda"],
        controller_configs=robosuite.load_controller_config(default_controller="OSC_POSE"),
        initialization_noise=None,
        use_camera_obs=False,
        has_renderer=False,
        has_offscreen_renderer=False,
        ignore_done=True,
        control_freq=RATE_HZ,
        hard_reset=False,
        camera_names=list(VIEWS),
        camera_heights=VIEW_SIZE,
        camera_widths=VIEW_SIZE,
    )
    for observable in env._observables.values():  # read from the state where they are needed
        observable.set_enabled(False)
    return env


def draw(env: Any, seed: int) -> np.ndarray:
    """An initial state of the seed's own: objects in the problem file's regions, the arm near home.

    The published states were drawn in this way, too.
    """
    np.random.seed(seed % 2**32)
    env.reset()
    joints = env.robots[0]._ref_joint_pos_indexes
    env.sim.data._data.qpos[joints] += np.random.normal(0.0, ARM_SIGMA_RAD, len(joints))
    return env.sim.get_state().flatten()


def begin(env: Any, state: np.ndarray) -> None:
    """Place what is not in a state vector as `env.seed(0)` does, then everything else by it.

    The published evaluations seed once per task; here every episode does, so that it does not
    depend on the episodes before it.
    """
    np.random.seed(SCENE_SEED)
    env.reset()
    for robot in env.robots:  # a soft reset forgets it, and the fingers go on where they were
        robot.gripper.current_action = np.zeros(robot.gripper.dof)
    env.sim.set_state_from_flattened(state)
    env.sim.forward()
    env._check_success()
    env._post_process()


def save_control(env: Any) -> np.ndarray:
    """What the controller goes on from: the hand's goal, and the command of the fingers."""
    arm, hand = env.robots[0].controller, env.robots[0].gripper
    return np.concatenate([arm.goal_pos, arm.goal_ori.ravel(), hand.current_action])


def load_control(env: Any, saved: np.ndarray) -> None:
    """Let it go on from what `save_control` gave."""
    arm, hand = env.robots[0].controller, env.robots[0].gripper
    arm.goal_pos, arm.goal_ori = saved[:3].copy(), saved[3:12].reshape(3, 3).copy()
    hand.current_action = saved[12:].copy()
