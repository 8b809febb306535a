"""`--engine` of `leanvla replay`: what the recording ran on, so that it repeats itself."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from leanvla.commands.replay import NOBODY, RECORDED
from leanvla.commands.rollout_engine import AUTO, find_engines, given_engine, wanted_cell

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from leanvla.commands.replay import Replay
    from policy.replay.layout import Fact
    from sim.rollout.types import Cell


def engines_for(
    config: Replay, facts: Mapping[str, Fact], cells: Sequence[Cell]
) -> dict[Cell, str]:
    """By cell, the folder of the engine that answers; a cell that is missing runs on torch.

    Raises:
        UsageError: when `--engine` and `--policy` do not go together.
        EnvironmentFault: when a cell needs torch, and torch is missing.
        EngineError: for an engine that is damaged, of other weights, or without a rung.
    """
    if config.policy == NOBODY:
        return {}
    if config.engine != RECORDED:
        return find_engines(config, cells)[0]
    ran = str(facts.get("engine", ""))
    if not ran:
        return {}
    asked = replace(config, engine=AUTO)
    engines, _ = find_engines(asked, cells)
    mine = [cell for cell in cells if _is(cell, facts)]
    if config.policy != facts.get("policy") or not mine or engines.get(mine[0]) == ran:
        return engines
    if Path(ran).is_dir():
        from policy.registry import resolve_policy

        wanted = {cell: wanted_cell(cell, config) for cell in mine}
        return engines | given_engine(ran, resolve_policy(config.policy), wanted)
    if not same_engine(ran, engines.get(mine[0], "")):
        print(
            f"{mine[0]} was recorded on {ran}, which is not here: answers may differ in their last "
            "bits (--engine names another)",
            file=sys.stderr,
        )
    return engines


def same_engine(recorded: str, now: str) -> bool:
    """Whether two folders name one engine; a cache names engines by what they are made of."""
    return Path(recorded).name == Path(now).name


def _is(cell: Cell, facts: Mapping[str, Fact]) -> bool:
    return (cell.method, str(cell.keep)) == (facts.get("method"), str(facts.get("keep")))
