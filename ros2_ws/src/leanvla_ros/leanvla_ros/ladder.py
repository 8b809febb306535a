"""The rungs that a running node may switch between: each a loaded, warmed, proven policy."""

from __future__ import annotations

import importlib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from leanvla_ros.runtimes import TORCH, choose_runtimes
from policy.registry import load_policy
from policy.types import Observation

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from policy.contract import Contract
    from policy.types import Policy

Key = tuple[str, float]


class RungError(ValueError):
    """A method and budget that is not on the ladder."""


@dataclass(frozen=True)
class Rung:
    """One method at one budget, how long a query took once it was warm, and what runs it.

    Attributes:
        engine: the engine's folder; empty for torch and for a policy with its own runtime.
        note: why it is torch where `auto` was asked for.
    """

    method: str
    keep: float
    policy: Policy
    warm_ms: float
    runs_on: str = ""
    engine: str = ""
    note: str = ""

    @property
    def name(self) -> str:
        """As a replay names the same cell: `dense`, or `vla_pruner @ 0.25`."""
        return self.method if self.method == "dense" else f"{self.method} @ {self.keep:g}"


def parse_rung(text: str) -> Key:
    """`vla_pruner:0.25` as method and budget.

    Raises:
        RungError: when it is something else.
    """
    method, _, keep = text.rpartition(":")
    try:
        value = float(keep)
    except ValueError:
        value = 0.0
    if not method or not 0.0 < value <= 1.0:
        raise RungError(f"rung {text!r}: write METHOD:KEEP, for example vla_pruner:0.25")
    return method, value


class Ladder:
    """All rungs of one policy. They share one network, so a rung costs next to nothing.

    Args:
        source: a packaged name, a folder of a checkpoint or an engine, or module:callable.
        rungs: methods and budgets; the first is at work first.
        contract: gives the sizes of the pictures to warm up with.
        engine: what runs a checkpoint; see `choose_runtimes`.
        say: told of engines that are made now.
        options: keyword arguments of `load_policy`.
    """

    def __init__(
        self,
        source: str,
        rungs: Sequence[Key],
        contract: Contract,
        engine: str = TORCH,
        say: Callable[[str], None] = lambda text: None,
        **options: Any,
    ) -> None:
        self._rungs: dict[Key, Rung] = {}
        runtimes = choose_runtimes(source, rungs, engine, str(options.get("device", "cpu")), say)
        opened: dict[str, Policy] = {}
        for (method, keep), runtime in runtimes.items():
            policy = _load(runtime.source, method, keep, options, opened)
            warm_ms, runs_on = _warm(policy, contract), str(getattr(policy, "runs_on", ""))
            self._rungs[method, keep] = Rung(
                method, keep, policy, warm_ms, runs_on, runtime.engine, runtime.note
            )
        self.current = self._rungs[rungs[0]]

    def switch(self, method: str, keep: float) -> Rung:
        """Put a rung to work, for the next question.

        Raises:
            RungError: when there is no such rung; the message lists those that there are.
        """
        self.current = self.find(method, keep)
        return self.current

    def find(self, method: str, keep: float) -> Rung:
        """A rung.

        Raises:
            RungError: as `switch`.
        """
        if (method, keep) not in self._rungs:
            known = ", ".join(f"{m}:{k:g}" for m, k in self._rungs)
            raise RungError(
                f"{method}:{keep:g} is no rung of the ladder ({known}): set method and keep "
                "together, or start the node with a longer ladder"
            )
        return self._rungs[method, keep]

    def __iter__(self) -> Any:
        """All rungs, in the order given."""
        return iter(self._rungs.values())


def _load(
    source: str, method: str, keep: float, options: dict[str, Any], opened: dict[str, Policy]
) -> Policy:
    if ":" in source:
        module, _, name = source.partition(":")
        return getattr(importlib.import_module(module), name)(method=method, keep=keep)
    if source in opened:  # the node asks one question at a time: rungs may share their stages
        return opened[source].beside(method, keep)  # type: ignore[attr-defined]
    policy = load_policy(source, method=method, keep=keep, **options)
    if hasattr(policy, "beside"):
        opened[source] = policy
    return policy


def _warm(policy: Policy, contract: Contract) -> float:
    """Answer two queries unmeasured and one measured: first calls allocate and compile."""
    rng, spec = np.random.default_rng(0), policy.observation_spec
    sizes = {camera.view: (camera.height, camera.width) for camera in contract.cameras}
    images = tuple(
        rng.integers(0, 256, (*sizes.get(view, (224, 224)), 3), np.uint8) for view in spec.views
    )
    state = np.zeros(len(spec.state_names), np.float32) if spec.state_names else None
    observation = Observation(images, state, "warm up", stamp_s=1.0)
    elapsed_ms = 0.0
    for _ in range(3):
        began = time.perf_counter()
        policy.infer(observation, policy.initial_state())
        elapsed_ms = (time.perf_counter() - began) * 1e3
    return elapsed_ms
