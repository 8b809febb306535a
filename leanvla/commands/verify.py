"""`leanvla verify`: does an engine say what the model it was made from says?"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tyro.conf import Positional

from leanvla.errors import CHECK_FAILED, UsageError

if TYPE_CHECKING:
    from engines.artefact import Engine
    from engines.manifest import Parity, Rung
    from policy.types import Observation

SCHEMA = 1
TORCH = "torch"


@dataclass(frozen=True)
class Verify:
    """Compare an engine with its model: every stage and whole queries, for every rung.

    Hashes are checked, then both run the same observations; the ledger in the engine's manifest is
    written anew. Other tokens kept are a miss, except in a tie: where rounding alone decides what
    the model keeps. With `--episodes` both act instead, and what is compared is success.

    Attributes:
        engine: folder that `leanvla export` wrote, or the name of a policy that ships with graphs.
        policy: the checkpoint; the one named in the engine when left out.
        method: of the engine's rungs only those of these methods, separated by commas, and dense.
        keep: only those with these keep ratios, separated by commas, and dense.
        suite: replay an episode of this suite, with the engine acting, instead of made-up frames.
        seed: scene of that episode.
        observations: observations to compare, at most.
        episodes: instead of observations, compare success: so many episodes of the suite a rung,
            each by the engine and by the reference, on the same seeds.
        against: the reference of these episodes: `torch`, or another engine of the same weights
            (a folder, or the name of a policy that ships with graphs).
        workers: episode workers.
        out: folder of these episodes; a run that was cut goes on in it.
        json: print the ledger, or the comparison of episodes, as JSON.
    """

    engine: Positional[Path]
    policy: str | None = None
    method: str = ""
    keep: str = ""
    suite: str | None = None
    seed: int = 0
    observations: int = 8
    episodes: int = 0
    against: str = TORCH
    workers: int = 2
    out: Path = Path("runs/verify")
    json: bool = False


def run(config: Verify) -> int:
    """Recompute the ledger and show it; 1 when a rung does not agree.

    Raises:
        UsageError: for numbers that make no sense.
        EngineError: for a damaged engine, or one that was made from other weights.
    """
    from engines.artefact import Engine
    from leanvla.commands.engine_folder import engine_folder
    from leanvla.commands.export import Talk
    from policy.openvla.engine.verify import judge, verify
    from policy.registry import resolve_policy

    _check(config)
    engine = Engine(engine_folder(config.engine))
    rungs = _rungs(config, engine)
    if config.episodes:
        from leanvla.commands.verify_episodes import compare_episodes

        return compare_episodes(config, engine, rungs)
    checkpoint = resolve_policy(config.policy or engine.manifest.policy)
    ledger = verify(engine, checkpoint, _observations(config, engine), Talk(), rungs)
    misses = [miss for parity in ledger if (miss := judge(engine, parity))]
    if config.json:
        print(json.dumps(_plain(engine, ledger, misses), indent=2))
    else:
        _show(engine, ledger, misses)
    return CHECK_FAILED if misses else 0


def _check(config: Verify) -> None:
    least = {"observations": 1, "episodes": 0, "workers": 0, "seed": 0}
    for name, low in least.items():
        if getattr(config, name) < low:
            raise UsageError(f"--{name} is {getattr(config, name)}: give {low} or more")
    if config.episodes and config.suite is None:
        raise UsageError("--episodes need a suite to act in: give --suite tabletop")
    if config.against != TORCH and not config.episodes:
        raise UsageError("--against compares success: give --suite and --episodes, too")


def _rungs(config: Verify, engine: Engine) -> list[Rung]:
    from leanvla.commands.arguments import parse_ratio, split_list
    from policy.openvla.config import load_config
    from policy.openvla.engine.rungs import choose_rungs

    methods = split_list(config.method, "--method") if config.method else []
    keeps = [parse_ratio(text) for text in split_list(config.keep, "--keep")] if config.keep else []
    return choose_rungs(engine.manifest, load_config(engine.folder / "policy"), methods, keeps)


def _observations(config: Verify, engine: Engine) -> list[Observation]:
    from policy.openvla.config import load_config
    from policy.openvla.engine.verify import generated

    if config.suite is None:
        return generated(load_config(engine.folder / "policy"), config.observations)
    from leanvla.commands.recorded_episode import record_episode

    return record_episode(config.suite, engine, config.seed, config.observations)


def _plain(engine: Engine, ledger: list[Parity], misses: list[str]) -> dict[str, object]:
    import msgspec

    return {
        "schema": SCHEMA,
        "engine": str(engine.folder),
        "precision": engine.manifest.precision,
        "misses": misses,
        "ledger": msgspec.to_builtins(ledger),
    }


def _tie(parity: Parity) -> str:
    if not parity.kept_tied:
        return ""
    return (
        f"tie: {parity.method} at {parity.keep:g}: in {parity.kept_tied} of {parity.observations} "
        "queries other tokens were kept only where rounding decides; actions of these differ by "
        f"{parity.tied_action_max_abs:.2g}, and are not judged"
    )


def _show(engine: Engine, ledger: list[Parity], misses: list[str]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    table = Table(title=f"{engine.folder}: {engine.manifest.precision} engine beside its model")
    counts = ("queries", "same kept", "ties", "action max", "first action", "least cosine")
    for column in ("rung", *counts):
        table.add_column(column, justify="left" if column == "rung" else "right")
    for parity in ledger:
        cosine = min(stage.cosine for stage in parity.stages.values())
        table.add_row(
            f"{parity.method} at {parity.keep:g}",
            str(parity.observations),
            str(parity.kept_equal),
            str(parity.kept_tied),
            f"{parity.action_max_abs:.1e}",
            f"{parity.first_action_max_abs:.1e}",
            f"{cosine:.7f}",
        )
    console.print(table)
    for tie in filter(None, map(_tie, ledger)):
        console.print(tie, markup=False)
    for miss in misses:
        console.print(f"miss: {miss}", markup=False)
