"""The processes of a sweep on Ray: one per environment, and policies that environments share.

Only this module and `ray_pool` import Ray.
"""

from __future__ import annotations

import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import ray
from ray.exceptions import GetTimeoutError, ObjectLostError, RayActorError, RayTaskError

from sim.rollout.batching import Batcher
from sim.rollout.factories import make_policy
from sim.rollout.types import EpisodeLostError
from sim.rollout.worker import EpisodeWorker
from sim.sweep.identity import identity_of

if TYPE_CHECKING:
    from policy.types import ActionSpec, Inference, Observation, ObservationSpec
    from pruning.history import PrunerState
    from sim.rollout.types import Beat, Cell, Deadlines, Done, Fatal, Job, Lost
    from sim.rollout.worker import WorkerSpec

LOST = (RayActorError, ObjectLostError)
COMMON = ("code", "packages")


class PolicyLostError(EpisodeLostError):
    """The process of a shared policy is gone or silent."""

    preempted = True


class Standing(NamedTuple):
    """A process that stands: where, and what it found there of a run's identity."""

    node: str
    identity: dict[str, Any]


class Described(NamedTuple):
    """What an environment must know of a policy that lives elsewhere."""

    observation_spec: ObservationSpec
    action_spec: ActionSpec
    execute: int | None
    runs_on: str
    state: PrunerState


class EpisodeActor:
    """One environment: an episode worker whose simulator is a process beside it.

    Args:
        spec: what all workers of the run have in common.
        swap: whether instructions are swapped, for the identity alone.
        policy: the actor of a shared policy; None loads one into this process.
    """

    def __init__(self, spec: WorkerSpec, swap: bool, policy: Any = None) -> None:
        _forget_main()
        self._spec, self._swap = spec, swap
        self._parts = ("suite", *COMMON) if policy else ("suite", "policy", *COMMON)
        shared = partial(RemotePolicy, policy, spec.deadlines) if policy else None
        self._worker = EpisodeWorker(spec, shared)
        self._heard = time.monotonic()

    def stand(self) -> Standing:
        """Where this is, and what it found there."""
        return _standing(self._spec, self._swap, self._parts)

    def run(self, job: Job) -> Done | Lost | Fatal:
        """Run one attempt."""
        self._heard = time.monotonic()
        return self._worker.attempt(job, self._beat)

    def quiet_s(self) -> float:
        """Seconds since the last sign of life."""
        return time.monotonic() - self._heard

    def _beat(self, _: Beat) -> None:
        self._heard = time.monotonic()


class PolicyActor:
    """A policy that environments share: observations that wait together are answered together.

    Args:
        spec: what all workers of the run have in common.
        swap: whether instructions are swapped, for the identity alone.
    """

    def __init__(self, spec: WorkerSpec, swap: bool) -> None:
        self._spec, self._swap = spec, swap
        self._batchers: dict[Cell, Batcher] = {}
        self._lock = threading.Lock()
        self._runner = ThreadPoolExecutor(1, thread_name_prefix="forward")

    def stand(self) -> Standing:
        """Where this is, and what it found there."""
        return _standing(self._spec, self._swap, ("policy", *COMMON))

    def describe(self, cell: Cell) -> Described:
        """Load the policy of a cell; networks are shared between cells."""
        policy = self._batcher(cell).policy
        return Described(
            policy.observation_spec,
            policy.action_spec,
            getattr(policy, "execute", None),
            getattr(policy, "runs_on", ""),
            policy.initial_state(),
        )

    def infer(self, cell: Cell, observation: Observation, state: PrunerState) -> Inference:
        """Answer one observation."""
        return self._batcher(cell).infer(observation, state)

    def _batcher(self, cell: Cell) -> Batcher:
        spec = self._spec
        with self._lock:
            if cell not in self._batchers:
                made = self._runner.submit(make_policy, spec.policy, cell, spec.threads).result()
                self._batchers[cell] = Batcher(made, spec.batch, self._runner)
            return self._batchers[cell]


class RemotePolicy:
    """A shared policy, as an environment sees it.

    Args:
        actor: handle of a `PolicyActor`.
        deadlines: how long it may take.
        cell: which rung is asked.

    Raises:
        PolicyLostError: when the actor is gone or silent.
    """

    def __init__(self, actor: Any, deadlines: Deadlines, cell: Cell) -> None:
        self._actor, self._deadlines, self._cell = actor, deadlines, cell
        described: Described = _get(actor.describe.remote(cell), deadlines.start)
        self.observation_spec, self.action_spec = described[:2]
        self.execute, self.runs_on = described.execute, described.runs_on
        self._state = described.state

    def initial_state(self) -> PrunerState:
        """The state to hand in with the first observation of an episode."""
        return self._state

    def infer(self, observation: Observation, state: PrunerState) -> Inference:
        """Run one query there.

        Raises:
            PolicyLostError: when the actor is gone or silent.
        """
        ref = self._actor.infer.remote(self._cell, observation, state)
        return _get(ref, self._deadlines.silence)  # it may be loading another cell


def _get(ref: Any, seconds: float) -> Any:
    try:
        return ray.get(ref, timeout=seconds)
    except RayTaskError as error:
        raise error.cause from None  # what the policy raised, as if it lived here
    except GetTimeoutError:
        raise PolicyLostError(f"shared policy gave no answer in {seconds:g} s") from None
    except LOST as error:
        raise PolicyLostError(f"shared policy was lost: {first_line(error)}") from None


def first_line(error: BaseException) -> str:
    """The first line of what an error says."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _standing(spec: WorkerSpec, swap: bool, parts: tuple[str, ...]) -> Standing:
    return Standing(ray.util.get_node_ip_address(), identity_of(spec, swap=swap, parts=parts))


def _forget_main() -> None:
    """A simulator's process begins by running its parent's main file again; Ray's takes seconds."""
    vars(sys.modules["__main__"]).pop("__file__", None)
