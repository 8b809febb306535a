"""Does this policy fit this suite? Compared by name and meaning, before the first step."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, NamedTuple

from policy.openvla.actions import gripper_to_signed, invert_gripper

if TYPE_CHECKING:
    from collections.abc import Callable

    from jaxtyping import Float32
    from numpy import ndarray

    from policy.types import Observation, Policy
    from sim.suites.base import SuiteSpec

    Actions = Float32[ndarray, "*rows dof"]


class Adapter(NamedTuple):
    """A declared conversion of actions.

    Attributes:
        name: what it is called in messages.
        says: the policy's gripper.
        takes: the suite's gripper.
        convert: action rows of the one to rows of the other.
    """

    name: str
    says: str
    takes: str
    convert: Callable[[Actions], Actions]


def openvla_libero(actions: Actions) -> Actions:
    """Of [0, 1], 1 is open, to exactly -1 (open) or +1: how OpenVLA and OpenVLA-OFT evaluate.

    Both scale to [-1, 1], binarise, then flip the sign (`normalize_gripper_action` and
    `invert_gripper_action` of their `experiments/robot/robot_utils.py`).
    """
    return invert_gripper(gripper_to_signed(actions, binarise=True))


ADAPTERS = (Adapter("openvla_libero", "0 closed, 1 open", "-1 open, +1 close", openvla_libero),)


class MismatchError(ValueError):
    """The suite does not show what the policy reads, or does not take what it says."""


def adapt_actions(policy: Policy, suite: SuiteSpec) -> Adapter | None:
    """The declared conversion from the policy's gripper to the suite's; None when they agree.

    Raises:
        MismatchError: when they differ and no conversion between them is declared.
    """
    says, takes = policy.action_spec.gripper, suite.action.gripper
    if says == takes:
        return None
    for adapter in ADAPTERS:
        if (adapter.says, adapter.takes) == (says, takes):
            return adapter
    raise MismatchError(
        f"action gripper differs: the policy says {says}, suite {suite.name} takes {takes}, and no "
        "conversion between them is declared"
    )


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
    adapter = adapt_actions(policy, suite)
    for field in ("names", "rotation", "rate_hz"):
        says, takes = getattr(policy.action_spec, field), getattr(suite.action, field)
        if adapter is not None and field == "names":  # the last one names the gripper's range
            says, takes = says[:-1], takes[:-1]
        if says != takes:
            raise MismatchError(
                f"action {field} differs: the policy says {says}, suite {suite.name} takes {takes}"
            )
