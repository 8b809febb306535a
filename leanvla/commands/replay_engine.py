"""`--engine` of `leanvla replay`: what the recording ran on, so that it repeats itself."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING

from leanvla.commands.arguments import parse_options
from leanvla.commands.replay import NOBODY, RECORDED
from leanvla.commands.replay_plan import cells
from leanvla.commands.rollout_engine import AUTO, TORCH, choose_runtimes
from sim.rollout.types import Source

if TYPE_CHECKING:
    from collections.abc import Mapping

    from leanvla.commands.replay import Replay


def make_policy_source(config: Replay, facts: Mapping[str, object]) -> Source:
    """Where the policies come from, with an engine for every cell that shall run on one.

    Args:
        config: what was asked for.
        facts: what the recording says of itself.

    Raises:
        UsageError: when `--engine` and `--policy` do not go together.
        EnvironmentFault: when a cell needs torch, and torch is missing.
        EngineError: for an engine that is damaged, of other weights, or without a rung.
    """
    given = {} if ":" in config.policy else {"unnorm_key": config.unnorm_key}
    source = Source(config.policy, given, parse_options(config.option))
    if config.policy == NOBODY:
        return source
    recorded = config.engine == RECORDED
    engine = config.engine
    if recorded:
        engine = AUTO if facts.get("engine") or _brings_its_own(config.policy) else TORCH
    engines, notes = choose_runtimes(config.policy, engine, cells(config), config.option)
    if recorded and engine == TORCH:
        notes = dict.fromkeys(notes, "the recording names no engine")
    source = replace(source, engines=engines, notes=notes)
    if recorded and engine == AUTO:
        _tell_of_another(config, source, facts)
    return source


def _brings_its_own(policy: str) -> bool:
    from policy.registry import is_engine, resolve_policy

    return ":" in policy or is_engine(resolve_policy(policy))


def _tell_of_another(config: Replay, source: Source, facts: Mapping[str, object]) -> None:
    """The recorded cell runs on another engine than the one that recorded it."""
    if config.policy != facts.get("policy"):
        return
    for cell in source.engines:
        mine = (cell.method, str(cell.keep)) == (facts.get("method"), str(facts.get("keep")))
        if mine and source.engine_sha256(cell) != facts.get("engine"):
            print(
                f"{cell} was recorded on another engine than the one that is here: answers may "
                "differ in their last bits (--engine FOLDER names it)",
                file=sys.stderr,
            )
