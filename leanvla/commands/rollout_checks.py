"""What a suite, or a policy that is served elsewhere, cannot do: refused before anything starts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from leanvla.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from leanvla.commands.rollout import Rollout
    from sim.rollout.types import Cell


def check_served(config: Rollout, cells: Iterable[Cell]) -> None:
    """Ask a policy's server for every cell, and compare its spec with the suite's.

    Raises:
        UsageError: for an option that only the server can take.
        AddressError: for an address that is none.
        ServeError: when nobody answers there, or not for a cell.
        MismatchError: when policy and suite do not fit; it prints both sides.
    """
    if config.option or config.unnorm_key is not None:
        raise UsageError(
            f"{config.policy} has its own options: give --option and --unnorm-key to `leanvla "
            "serve`"
        )
    from policy.serve.client import ServedPolicy
    from sim.rollout.match import match
    from sim.suites import suite_spec

    for cell in cells:
        policy = ServedPolicy(config.policy, method=cell.method, keep=cell.keep)
        try:
            if ":" not in config.suite:
                match(policy, suite_spec(config.suite))
        finally:
            policy.close()
