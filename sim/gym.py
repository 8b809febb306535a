"""The suites as gymnasium environments: `import sim.gym`, then `gymnasium.make("leanvla/...-v0")`.

Example:
    import gymnasium
    import sim.gym

    env = gymnasium.make("leanvla/tabletop-v0", view_size=128)
    observation, info = env.reset(seed=3)
    observation, reward, terminated, truncated, info = env.step(env.action_space.sample())

One environment per suite. An observation holds a frame per camera, `state` and `instruction`; an
action is one row of the suite's action spec. What the values mean, with their units, stands in
`env.metadata`. The reward is 1 in the step that solves the task, 0 otherwise.
"""

from __future__ import annotations

import string
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np
from gymnasium import spaces

from policy.types import MAX_INSTRUCTION_CHARS
from sim.demos import EVAL_SEED_LIMIT
from sim.suites import SUITES, make_suite, suite_spec

if TYPE_CHECKING:
    from jaxtyping import UInt8

    from policy.types import Observation
    from sim.suites.base import SuiteSpec, TrainingSuite

RENDER_SIZE = 256


class SuiteEnv(gymnasium.Env):
    """A suite. The simulator starts with the first reset.

    Attributes:
        metadata: gymnasium's keys, and of the suite: `state_names` and `action_names` (with units),
            `rotation`, `gripper`, `rate_hz`, `horizon`, `max_steps`, `render_profile`.

    Args:
        suite: its name.
        render_mode: `rgb_array`, or None.
        render_profile: `default`, `fast` or `lowpoly`; None takes the suite's own.
        view_size: side of the frames, px; None takes the suite's own.
        views: cameras to show, main first; None shows all.
        perturb: perturbations, e.g. `camera:0.05,lighting:0.3`.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"]}  # noqa: RUF012 - gymnasium's own

    def __init__(
        self,
        suite: str,
        *,
        render_mode: str | None = None,
        render_profile: str | None = None,
        view_size: int | None = None,
        views: tuple[str, ...] | None = None,
        perturb: str = "",
    ) -> None:
        self._spec = suite_spec(suite, render_profile=render_profile, views=views)
        self._options = {
            "render_profile": render_profile,
            "view_size": view_size,
            "views": views,
            "perturb": perturb,
        }
        size = view_size or _SIZES.get(suite.partition("_")[0], 96)
        self.render_mode = render_mode
        self.metadata = _metadata(self._spec)
        self.observation_space = _observation_space(self._spec, size)
        self.action_space = spaces.Box(-1.0, 1.0, (self._spec.action.dof,), np.float32)
        self._suite: TrainingSuite | None = None
        self._steps = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Begin an episode.

        Args:
            seed: the suite's seed: a scene and its task. Without one the next is drawn from the
                held-out seeds.
            options: none are read.
        """
        super().reset(seed=seed)
        episode = seed if seed is not None else int(self.np_random.integers(EVAL_SEED_LIMIT))
        start = self._started().reset(episode)
        self._steps = 0
        info = {
            "seed": episode,
            "task": start.task,
            "instruction": start.instruction,
            "init_state_hash": start.init_state_hash,
            "perturbed": dict(start.perturbed),
        }
        return self._observe(), info

    def step(self, action: np.ndarray) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """Advance one control step, and render."""
        result = self._started().step(np.asarray(action, np.float32))
        self._steps += 1
        success = bool(result.success)
        late = not success and self._steps >= self._spec.max_steps
        info = {"success": success, "wrong_object": bool(result.wrong_object)}
        return self._observe(), float(success), success, late, info

    def render(self) -> UInt8[np.ndarray, "h w 3"] | None:
        """The main camera's frame, in `rgb_array` mode."""
        if self.render_mode != "rgb_array" or self._suite is None:
            return None
        return self._suite.render(self._spec.observation.views[0], RENDER_SIZE)

    def close(self) -> None:
        """End the simulator."""
        if self._suite is not None:
            self._suite.close()
            self._suite = None

    def expert_action(self) -> np.ndarray:
        """The scripted expert's action in the present state, where the suite has one."""
        return self._started().expert_action()

    def _started(self) -> TrainingSuite:
        if self._suite is None:
            self._suite = make_suite(self._spec.name, **self._options)  # type: ignore[arg-type]
        return self._suite

    def _observe(self) -> dict[str, Any]:
        seen: Observation = self._started().observe()
        frames = dict(zip(self._spec.observation.views, seen.images, strict=True))
        return {**frames, "state": seen.state, "instruction": seen.instruction}


_SIZES = {"libero": 256}


def _metadata(spec: SuiteSpec) -> dict[str, Any]:
    return {
        "render_modes": ["rgb_array"],
        "render_fps": round(spec.action.rate_hz),
        "state_names": spec.observation.state_names,
        "action_names": spec.action.names,
        "rotation": spec.action.rotation,
        "gripper": spec.action.gripper,
        "rate_hz": spec.action.rate_hz,
        "horizon": spec.action.horizon,
        "max_steps": spec.max_steps,
        "render_profile": spec.render_profile,
    }


def _observation_space(spec: SuiteSpec, size: int) -> spaces.Dict:
    frame = spaces.Box(0, 255, (size, size, 3), np.uint8)
    values = (len(spec.observation.state_names),)
    return spaces.Dict(
        {
            **dict.fromkeys(spec.observation.views, frame),
            "state": spaces.Box(-np.inf, np.inf, values, np.float32),
            "instruction": spaces.Text(MAX_INSTRUCTION_CHARS, charset=string.printable),
        }
    )


def register() -> None:
    """Tell gymnasium of every suite. Safe to call again."""
    for suite in SUITES:
        name = f"leanvla/{suite}-v0"
        if name not in gymnasium.registry:
            gymnasium.register(name, "sim.gym:SuiteEnv", kwargs={"suite": suite})


register()
