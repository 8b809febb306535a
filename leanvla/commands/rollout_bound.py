"""What a rollout on an engine says of torch, which it does not run.

How much faster an engine is than torch takes torch to measure: `leanvla profile --torch` does. What
can be told without: the least time of the products that both must compute, and by that how slow
torch would have to be for the engine to be `WANTED` times as fast.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from leanvla.commands.profile_torch import WANTED
from leanvla.commands.report_results import architecture
from sim.analysis.cells import mean_macs
from sim.rollout.types import DENSE, Cell

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from leanvla.commands.rollout import Rollout
    from sim.rollout.types import EpisodeRecord

    Run = dict[str, Any]

BOUNDED = "onnxruntime cpu fp32"
"""Engines whose least time is that of float32 products; fewer bits may well pass it."""


def tell_bounds(
    runs: Sequence[Run],
    records: Callable[[Cell], Sequence[EpisodeRecord]],
    config: Rollout,
    engines: Mapping[Cell, str],
    flop_per_s: Callable[[], float],
) -> None:
    """Add `torch_bound` to every run: None where it did not run on a float32 engine.

    Args:
        runs: of `metrics.json`.
        records: finished episodes of a cell.
        config: what was asked for.
        engines: by cell, the engine's folder; empty where the policy is an engine itself.
        flop_per_s: measures one thread of this processor; called when there is a use for it.
    """
    bounded = [run for run in runs if run["engine"] == BOUNDED]
    network = architecture(config.policy) if bounded else None
    cells = [Cell(run["method"], run["keep"]) for run in bounded]
    folders = {cell: engines.get(cell, config.policy) for cell in cells}
    for run in runs:
        cell, query_ms = Cell(run["method"], run["keep"]), run["query_latency_ms"]["p50"]
        macs = mean_macs(records(cell), network) if cell in folders else None
        run["torch_bound"] = None
        if macs and query_ms:
            same = [other for other in folders if folders[other] == folders[cell]]
            command = _command(config, same, folders[cell])
            bound = _bound(macs, query_ms, flop_per_s() * config.threads)
            run["torch_bound"] = bound | {"command": command}


def _bound(macs: float, query_ms: float, flop_per_s: float) -> dict[str, float]:
    least_ms, wanted_ms = 2e3 * macs / flop_per_s, WANTED * query_ms
    return {
        "macs": macs,
        "flop_per_s": flop_per_s,
        "least_ms": least_ms,
        "wanted": WANTED,
        "wanted_torch_ms": wanted_ms,
        "wanted_torch_rate": least_ms / wanted_ms,
    }


def _command(config: Rollout, cells: Sequence[Cell], folder: str) -> str:
    """What measures the ratio: engine and torch in the same rounds."""
    name = config.policy if _ships_with(config.policy, folder) else folder
    pruned = [cell for cell in cells if cell.pruned]
    methods = dict.fromkeys(":".join([cell.method, *config.option]) for cell in pruned)
    keeps = dict.fromkeys(f"{cell.keep:g}" for cell in pruned)
    words = ["leanvla", "profile", "--engine", name, "--torch"]
    words += ["--method", ",".join(methods) or DENSE]
    return shlex.join([*words, "--keep", ",".join(keeps)] if keeps else words)


def _ships_with(policy: str, folder: str) -> bool:
    """Whether an engine is the one of the graphs that a packaged policy ships with."""
    from policy.openvla.engine.packaged import packaged_engine, packaged_graphs
    from policy.registry import packaged_policies, resolve_policy

    if policy not in packaged_policies():
        return False
    checkpoint = resolve_policy(policy)
    return packaged_graphs(checkpoint) is not None and packaged_engine(checkpoint) == Path(folder)
