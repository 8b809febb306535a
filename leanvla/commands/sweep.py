"""`leanvla sweep`: many rollouts into one store, on this machine or on many."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from leanvla.errors import UsageError


@dataclass(frozen=True)
class Sweep:
    """Run what a sweep's file asks for and the store lacks; or `merge` stores; or show a `status`.

    Attributes:
        what: a YAML file (docs/sweeps.md); or `merge STORE STORE ...`; or `status STORE`.
        out: the store.
        workers: episode workers; 0 means one per core, or as many as the Ray cluster holds.
        shard: this machine's share of the seeds, e.g. `1/4`; the stores are merged afterwards.
        retry_errors: run episodes again that ended in an error, which says nothing about a policy.
        plan: only print how many episodes there are and how long they will take.
        costs: folders of earlier rollouts or sweeps whose measured times `--plan` may use.
        ray: run on Ray: `auto` for the cluster of this machine, an address, or `local` for one of
            its own on this machine.
        gpus: GPUs of each process that holds a policy, e.g. 0.25 (Ray).
        policies: shared policy processes of a batched policy (Ray).
        json: print metrics instead of tables.
    """

    what: Annotated[tuple[str, ...], tyro.conf.Positional]
    out: Path = Path("runs/sweep")
    workers: int = 0
    shard: str = "1/1"
    retry_errors: bool = False
    plan: bool = False
    costs: tuple[Path, ...] = ()
    ray: str | None = None
    gpus: float = 0.0
    policies: int = 1
    json: bool = False


def run(config: Sweep) -> int:
    """Do what was asked for; gives the exit code.

    Raises:
        UsageError: for an impossible request, before anything starts.
        MixedRunsError: when configurations would be mixed; the message has both sides.
        RolloutError: when the sweep could not go on; what was finished is kept.
    """
    from leanvla.commands.sweep_show import show_plan, show_status

    verb, *rest = config.what or ("",)
    if verb == "merge":
        return _merge(config, [Path(text) for text in rest])
    if verb == "status":
        if len(rest) > 1:
            raise UsageError("status takes one store: leanvla sweep status STORE")
        return show_status(Path(rest[0]) if rest else config.out, as_json=config.json).exit_code
    if len(config.what) != 1:
        raise UsageError("give one YAML file, `merge STORE STORE ... --out NEW`, or `status STORE`")
    from leanvla.commands.sweep_file import read_sweep
    from leanvla.commands.sweep_plan import make_runs
    from sim.sweep.store import SweepStore

    _check_numbers(config)
    file, store = read_sweep(Path(verb)), SweepStore(config.out)
    workers = config.workers or (os.cpu_count() or 1 if config.ray is None else 0)
    runs = make_runs(file, store, workers=workers, shard=parse_shard(config.shard))
    if config.plan:
        return show_plan(runs, config)
    from leanvla.commands.sweep_work import work

    return work(config, runs, store, Path(verb))


def parse_shard(text: str) -> tuple[int, int]:
    """`2/4` as (2, 4).

    Raises:
        UsageError: for anything else than a number from 1 to the number of shards.
    """
    number, slash, count = text.partition("/")
    if slash and number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count):
        return int(number), int(count)
    raise UsageError(f"--shard is {text!r}: give this machine's number and how many there are: 1/4")


def _merge(config: Sweep, folders: list[Path]) -> int:
    from leanvla.commands.sweep_show import check_parquet, show_status
    from sim.sweep.merge import merge
    from sim.sweep.parquet import NAME, write_parquet

    if not folders:
        raise UsageError("merge needs stores: leanvla sweep merge STORE STORE ... --out NEW")
    check_parquet()
    store = merge(folders, config.out)
    rows = write_parquet(config.out / NAME, store.runs())
    print(f"{rows} episodes in {config.out}", file=sys.stderr)
    return show_status(config.out, as_json=config.json).exit_code


def _check_numbers(config: Sweep) -> None:
    if config.workers < 0:
        raise UsageError(f"--workers is {config.workers}: give 0 or more")
    if config.policies < 1:
        raise UsageError(f"--policies is {config.policies}: give 1 or more")
    if config.gpus < 0:
        raise UsageError(f"--gpus is {config.gpus}: give 0 or more")
    if config.ray is None and (config.gpus or config.policies > 1):
        raise UsageError("--gpus and --policies place processes on Ray: add --ray local")
