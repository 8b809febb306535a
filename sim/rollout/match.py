"""Does this policy fit this suite? Compared by name and meaning, before the first step."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from policy.types import Observation, Policy
    from sim.suites.base import SuiteSpec


class MismatchError(ValueError):
    """The suite does not show what the policy reads, or does not take what it says."""


def match(policy: Policy, suite: SuiteSpec) -> Callable[[Observation], Observation]:
    """A function that hands the policy its own views and state values, in its own order.

    Raises:
        MismatchError: naming the view, the state value or the action property that does not fit.
    """
    _check_action(policy, suite)
    shown, read = suite.observation, policy.observation_spec
    views = [_find(name, shown.views, suite.name, "view") for name in read.views]
    state = [_find(name, shown.state_names, suite.name, "state value") for name in read.state_names]
    if read.views == shown.views and read.state_names in (shown.state_names, ()):
        return lambda observation: observation

    def choose(observation: Observation) -> Observation:
        return dataclasses.replace(
            observation,
            images=tuple(observation.images[i] for i in views),
            state=None if observation.state is None or not state else observation.state[state],
        )

    return choose


def _find(name: str, names: tuple[str, ...], suite: str, kind: str) -> int:
    if name not in names:
        raise MismatchError(
            f"the policy reads {kind} {name!r}, suite {suite} shows {', '.join(names) or 'none'}"
        )
    return names.index(name)


def _check_action(policy: Policy, suite: SuiteSpec) -> None:
    for field in ("names", "rotation", "gripper", "rate_hz"):
        says, takes = getattr(policy.action_spec, field), getattr(suite.action, field)
        if says != takes:
            raise MismatchError(
                f"action {field} differs: the policy says {says}, suite {suite.name} takes {takes}"
            )
