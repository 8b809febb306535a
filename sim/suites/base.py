"""The interface of a suite: a set of tasks that a policy can be rolled out on.

A suite lives in a worker process. Physics and rendering are apart on purpose: a policy that
executes a chunk of eight steps needs one rendered observation for eight physics steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from jaxtyping import Bool, Float32, Float64, Int32, UInt8

    from policy.types import ActionSpec, Observation, ObservationSpec


EVAL_SEED_LIMIT = 100_000
"""Held-out evaluation uses seeds below this, training seeds from here on."""


@dataclass(frozen=True)
class SuiteSpec:
    """What a suite shows, what it takes, and how long an episode may last.

    Attributes:
        name: the suite's name on the command line.
        observation: views and proprioception that `observe` gives.
        action: meaning of one action row that `step` takes.
        max_steps: physics-control steps after which an episode has failed.
        render_profile: `default`, `fast` or `lowpoly`; recorded with every result.
        roles: what the suite can point out in a view (`object`, `gripper`, `goal`), by its own
            segmentation; not every task has all of them; empty when it tells none, see
            `ShowsTruth`.
        saves: whether a running episode can be saved and returned to, see `SavesState`.
        scenes: compiled scenes that consecutive seeds walk through in turn: seeds that differ by a
            multiple of it share one, and an episode in another one begins later.
    """

    name: str
    observation: ObservationSpec
    action: ActionSpec
    max_steps: int
    render_profile: str
    roles: tuple[str, ...] = ()
    saves: bool = False
    scenes: int = 1


class EpisodeStart(NamedTuple):
    """What a reset tells.

    Attributes:
        task: task family.
        instruction: what is asked for, and judged.
        init_state_hash: of everything that the episode begins with.
        perturbed: what a perturbation drew, by kind.
    """

    task: str
    instruction: str
    init_state_hash: str
    perturbed: Mapping[str, Sequence[float]] = {}


class Scene(NamedTuple):
    """What a suite on MuJoCo is made of, for those that change how it looks.

    Attributes:
        model: the `mujoco.MjModel` of the running episode.
        data: its `mujoco.MjData`.
    """

    model: Any
    data: Any


class StepResult(NamedTuple):
    """What one control step tells; `wrong_object`: another object moved, the grounding failure."""

    success: bool
    wrong_object: bool


class Suite(Protocol):
    """One simulator. The same seed gives bit-identical initial states and images everywhere."""

    spec: SuiteSpec

    def reset(self, seed: int) -> EpisodeStart:
        """Lay out the scene of `seed`: task, poses, colours, light."""
        ...

    def set_instruction(self, instruction: str) -> None:
        """Say something else to the policy; success still judges the task of the reset."""
        ...

    def alternative_instruction(self, seed: int) -> str:
        """Another instruction that is valid in this scene and asks for something else."""
        ...

    def observe(self) -> Observation:
        """Render all views and read proprioception."""
        ...

    def step(self, action: Float32[np.ndarray, " dof"]) -> StepResult:
        """Advance one control step. Renders nothing."""
        ...

    def expert_action(self) -> Float32[np.ndarray, " dof"]:
        """The scripted expert's action in the present state; it recovers from slips."""
        ...

    def grounding(self) -> dict[str, Float32[np.ndarray, " 3"]]:
        """World positions, metres, of `target` (asked for) and `goal` (where it should go)."""
        ...

    def segmentation(self, view: str) -> tuple[Int32[np.ndarray, "h w"], dict[int, str]]:
        """Instance mask of a view and the name of each id (0 is background)."""
        ...

    def render(self, view: str, size: int) -> UInt8[np.ndarray, "size size 3"]:
        """One frame of a view at another size, for videos."""
        ...

    def close(self) -> None:
        """Free the simulator and its GL context."""
        ...


class ShowsTruth(Suite, Protocol):
    """A suite that knows what matters now and where it appears. For analysis; no policy sees it."""

    def roles(self) -> dict[str, str]:
        """Name in `segmentation` of each role that the task has now, e.g. `object`: `red_cube`."""
        ...

    def phase(self) -> str:
        """What the task asks for in the present state, e.g. `reach` or `carry`."""
        ...


class SavesState(Suite, Protocol):
    """A suite whose episodes can be returned to: then the same actions give the same bits."""

    def save_state(self) -> Float64[np.ndarray, " state"]:
        """Everything that the rest of the running episode depends on."""
        ...

    def load_state(self, state: Float64[np.ndarray, " state"]) -> None:
        """Return to a state that was saved in an episode of the same seed."""
        ...


class TrainingSuite(Suite, Protocol):
    """A suite that policies can be trained on: it can also say where things appear in a view."""

    def project(
        self, points: Float32[np.ndarray, "k 3"], view: str
    ) -> tuple[Float32[np.ndarray, "k 2"], Bool[np.ndarray, " k"]]:
        """Where world points, metres, appear in a view: (u, v) in [0, 1], and whether in frame."""
        ...
