"""What `leanvla rollout` checks before anything starts: names, numbers, and the machine."""

from __future__ import annotations

import importlib.util
import math
import sys
from typing import TYPE_CHECKING, Any

from leanvla.commands.arguments import parse_options, parse_ratio, split_list
from leanvla.commands.rollout_checks import check_served, check_suite_can, check_suite_ready
from leanvla.errors import EnvironmentFault, UsageError
from policy.serve.address import is_address
from pruning.registry import make_method
from sim.rollout.runner import Plan, grid
from sim.rollout.types import DENSE, EXPERT, Deadlines, Source
from sim.rollout.worker import WorkerSpec

if TYPE_CHECKING:
    from leanvla.commands.rollout import Rollout
    from pruning.base import Method


def make_plan(config: Rollout) -> Plan:
    """The grid of cells and seeds.

    Raises:
        UsageError: for a number that makes no sense.
        MethodError: for an unknown method or field; it lists the valid ones and the nearest.
        BudgetError: for a keep ratio outside (0, 1].
        PolicyNameError: for an unknown policy; it lists the packaged ones and the nearest.
        EngineError: for a method or budget that the engine was not exported with.
    """
    _check_numbers(config)
    methods = split_list(config.method, "--method")
    keeps = [parse_ratio(text) for text in split_list(config.keep, "--keep")]
    fields = parse_options(config.option)
    pruned = [name for name in methods if name != DENSE]
    made = [make_method(name, keep=keep, **fields) for name in pruned for keep in keeps]
    _check_rungs(config, made)
    if config.policy == EXPERT and methods != [DENSE]:
        _say("the expert is no model: there is nothing to prune, it runs once as `dense`")
        methods = [DENSE]
    seeds = tuple(range(config.seed, config.seed + config.episodes))
    return Plan(grid(methods, keeps), seeds, config.swap_instruction)


def make_spec(config: Rollout) -> WorkerSpec:
    """What the workers are told.

    Raises:
        UsageError: for an unknown suite or render profile.
        PolicyNameError: for an unknown policy; it lists the packaged ones and the nearest.
    """
    _check_suite(config)
    if config.truth and config.policy == EXPERT:
        raise UsageError("--truth: the expert is no model, it keeps no tokens")
    policy_options: dict[str, Any] = {}
    if config.policy != EXPERT and ":" not in config.policy:
        from policy.registry import resolve_policy

        resolve_policy(config.policy)
        policy_options = {"unnorm_key": config.unnorm_key}
    views = tuple(split_list(config.views, "--views")) if config.views else None
    shown: dict[str, Any] = {
        "render_profile": config.render_profile,
        "view_size": config.view_size,
        "views": views,
        "perturb": config.perturb or None,
    }
    return WorkerSpec(
        suite=Source(config.suite, {name: v for name, v in shown.items() if v is not None}),
        policy=Source(config.policy, policy_options, parse_options(config.option)),
        execute=config.execute,
        threads=config.threads,
        deadlines=Deadlines(request=config.sim_timeout),
        record=None if config.record is None else str(config.record),
        redact=config.redact,
        truth=config.truth,
    )


def check_machine(config: Rollout) -> None:
    """Find out in seconds what would otherwise fail after an hour.

    Raises:
        EnvironmentFault: when a package is missing, or the GL backend cannot render.
        RerunError: when `--rerun` is asked for and rerun-sdk is not installed.
    """
    if config.video and importlib.util.find_spec("av") is None:
        raise EnvironmentFault("videos need PyAV: pip install av, or run with --video 0")
    if config.record is not None:
        _check_record(config)
    if is_address(config.policy):
        check_served(config, make_plan(config).cells)
    if config.rerun is not None:
        from sim.rerun_log import check_rerun

        check_rerun()
    if ":" in config.suite:
        return
    check_suite_ready(config.suite)
    from sim.render import check_gl

    gl = check_gl()
    if not gl.ok:
        raise EnvironmentFault(f"{gl.problem}: {gl.remedy}")


def _check_rungs(config: Rollout, methods: list[Method]) -> None:
    """An engine runs the methods and budgets that it was exported with, no others."""
    if config.policy == EXPERT or ":" in config.policy:
        return
    from policy.registry import describing_files, is_engine, resolve_policy

    folder = resolve_policy(config.policy)
    if not is_engine(folder):
        return
    from engines.manifest import read_manifest
    from policy.openvla.config import load_config
    from policy.openvla.engine.rungs import find_rung

    manifest, architecture = read_manifest(folder), load_config(describing_files(folder))
    for method in methods:
        find_rung(manifest, method, architecture)


def _check_numbers(config: Rollout) -> None:
    least = {"episodes": 1, "workers": 0, "threads": 1, "video": 0, "seed": 0}
    least |= {name: 1 for name in ("execute", "view_size") if getattr(config, name) is not None}
    for name, low in least.items():
        if getattr(config, name) < low:
            flag = name.replace("_", "-")
            raise UsageError(f"--{flag} is {getattr(config, name)}: give {low} or more")
    if not 0 < config.sim_timeout < math.inf:
        raise UsageError(f"--sim-timeout is {config.sim_timeout}: give seconds above 0")


def _check_record(config: Rollout) -> None:
    if config.policy == EXPERT:
        raise UsageError("--record takes down a policy: for the expert there is `leanvla demos`")
    missing = [name for name in ("mcap", "rosbags") if importlib.util.find_spec(name) is None]
    if missing:
        raise EnvironmentFault(f"--record needs {missing[0]}: pip install 'leanvla[replay]'")


def _check_suite(config: Rollout) -> None:
    if ":" in config.suite:
        return
    from sim.demos import EVAL_SEED_LIMIT
    from sim.suites import SUITES, suite_spec, unknown_suite

    if config.suite not in SUITES:
        raise UsageError(str(unknown_suite(config.suite)))
    check_suite_can(config)
    if config.truth and not suite_spec(config.suite).roles:
        raise UsageError(f"--truth: suite {config.suite} does not say what its views show")
    if config.seed + config.episodes > EVAL_SEED_LIMIT:
        _say(f"seeds from {EVAL_SEED_LIMIT} on may have been trained on: not a held-out result")


def _say(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)
