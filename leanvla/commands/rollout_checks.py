"""What a suite, or a policy that is served elsewhere, cannot do: refused before anything starts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from leanvla.commands.arguments import split_list
from leanvla.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from leanvla.commands.rollout import Rollout
    from sim.rollout.types import Cell


def check_suite_can(config: Rollout) -> None:
    """Refuse what a suite cannot do, naming the suites that can.

    Raises:
        UsageError: for an expert or another instruction where there is none.
        PerturbError: for a perturbation that it cannot show.
        ValueError: for a camera that it does not have.
    """
    from sim.rollout.types import EXPERT
    from sim.suites import suite_spec, traits_of
    from sim.suites.perturb.kinds import check_supported, parse_perturb

    traits = traits_of(config.suite)
    if config.policy == EXPERT:
        check_expert(config.suite)
    if config.swap_instruction:
        _check_swap(config)
    check_supported(config.suite, parse_perturb(config.perturb), traits.perturb)
    views = tuple(split_list(config.views, "--views")) if config.views else None
    suite_spec(config.suite, render_profile=config.render_profile, views=views)


def check_expert(suite: str) -> None:
    """Refuse a suite whose scripted expert does not do every task.

    Raises:
        UsageError: naming the suites where there is one.
    """
    from sim.suites import SUITES, traits_of

    if not traits_of(suite).expert:
        able = ", ".join(name for name, entry in SUITES.items() if entry.traits.expert)
        raise UsageError(f"{suite} has no scripted expert for all its tasks: {able} have one")


def check_suite_ready(suite: str) -> None:
    """Find out at once what a suite's worker would find out after it started.

    Raises:
        SuiteEnvironmentError: when the suite's environment is not installed.
        AssetsError: when LIBERO's assets are not found.
    """
    from sim.suites.environment import environments

    if suite.startswith("libero_"):
        from sim.suites.libero.make import check_ready

        check_ready()
    elif suite.startswith("metaworld_"):
        environments()["metaworld"].python()


def _check_swap(config: Rollout) -> None:
    from sim.suites import SUITES

    seeds = range(config.seed, config.seed + config.episodes)
    swaps = SUITES[config.suite].traits.swaps
    stuck = next((seed for seed in seeds if not swaps(seed)), None)
    if stuck is None:
        return
    able = [n for n, e in SUITES.items() if all(map(e.traits.swaps, range(200)))]
    raise UsageError(
        f"--swap-instruction: nothing else can be asked for in the scene of seed {stuck} of "
        f"{config.suite}; it can in every scene of {', '.join(able)}"
    )


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
