"""What `leanvla replay` checks and prepares before the first look."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from leanvla.commands.arguments import parse_options, parse_ratio, split_list
from leanvla.commands.replay import NOBODY
from leanvla.errors import UsageError
from policy.replay.match import parse_view
from policy.replay.open import Options, open_episode
from policy.replay.run import Actor
from policy.replay.shards import Specs
from policy.replay.types import ReplayError
from pruning.registry import make_method
from sim.rollout.factories import make_policy
from sim.rollout.runner import grid
from sim.rollout.types import DENSE

if TYPE_CHECKING:
    from leanvla.commands.replay import Replay
    from policy.replay.types import Episode
    from sim.rollout.types import Cell, Source


def check(config: Replay) -> None:
    """Refuse what cannot work, before anything is read.

    Raises:
        UsageError: for a number that makes no sense.
        ReplayError: for a `--view` of another form.
        MethodError: for an unknown method or field.
        RerunError: when `--rerun` is asked for and rerun-sdk is not installed.
    """
    least = {"episode": 0, "threads": 1}
    least |= {name: 1 for name in ("execute", "limit") if getattr(config, name) is not None}
    for name, low in least.items():
        if getattr(config, name) < low:
            raise UsageError(f"--{name} is {getattr(config, name)}: give {low} or more")
    for text in config.view:
        parse_view(text)
    if config.policy != NOBODY:
        if ":" not in config.policy:
            from policy.registry import resolve_policy

            resolve_policy(config.policy)
        cells(config)
    if config.rerun is not None:
        from sim.rerun_log import check_rerun

        check_rerun()


def cells(config: Replay) -> tuple[Cell, ...]:
    """What is replayed: dense first, then each method at each keep ratio.

    Raises:
        UsageError, BudgetError: for a keep ratio outside (0, 1].
        MethodError: for an unknown method or field.
    """
    methods = split_list(config.method, "--method")
    keeps = [parse_ratio(text) for text in split_list(config.keep, "--keep")]
    fields = parse_options(config.option)
    for method in methods:
        for keep in keeps if method != DENSE else []:
            make_method(method, keep=keep, **fields)
    return grid(methods, keeps)


def open_source(config: Replay) -> Episode:
    """The episode that is asked for.

    Raises:
        ContractError: when the contract cannot be read.
        ReplayError: when the recording cannot be read.
    """
    contract = None
    if config.contract is not None:
        from policy.contract_file import read_contract

        contract = read_contract(config.contract)
    path = recording_of(config.recording)
    asked = Options(contract, config.instruction, suite_specs(path), config.recover)
    return open_episode(path, config.episode, asked)


def recording_of(path: Path) -> Path:
    """The recording itself: the folder of a rollout stands for the bags that it recorded.

    Raises:
        ReplayError: when the rollout recorded none.
    """
    if not (path / "episodes.jsonl").is_file():
        return path
    bags = _config_of(path).get("record")
    if not bags:
        raise ReplayError(
            f"{path} is a rollout that recorded nothing: run it again with --record FOLDER"
        )
    return Path(bags)


def suite_specs(path: Path) -> Specs | None:
    """What the suite of a folder of demonstrations shows and takes, where the folder says which."""
    from sim.suites import SUITES, suite_spec

    name = _config_of(path if path.is_dir() else path.parent).get("suite")
    if name not in SUITES:
        return None
    spec = suite_spec(name)
    return Specs(spec.observation, spec.action)


def _config_of(folder: Path) -> dict[str, Any]:
    """What a folder of ours says about itself; nothing, where it is not ours."""
    try:
        config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, UnicodeDecodeError):
        return {}
    return config if isinstance(config, dict) else {}


def make_actors(config: Replay, source: Source) -> list[tuple[Cell, Actor]]:
    """One policy per cell; eager ones share one network. None for `--policy none`.

    Raises:
        CheckpointError, UnnormKeyError, BudgetError: as `policy.registry.load_policy`.
    """
    if config.policy == NOBODY:
        return []
    return [
        (cell, Actor(str(cell), make_policy(source, cell, config.threads)))
        for cell in cells(config)
    ]
