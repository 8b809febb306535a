"""Running a sweep: what the store lacks, run by run, on local processes or on Ray."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

from leanvla.commands.rollout import Rollout, terminate_as_interrupt
from leanvla.commands.rollout_engine import with_engines
from leanvla.commands.rollout_plan import check_machine
from leanvla.commands.rollout_provenance import write_environment
from leanvla.commands.rollout_results import Results
from leanvla.commands.sweep_show import check_parquet, show_status
from leanvla.errors import CHECK_FAILED, INTERRUPTED, UsageError
from leanvla.run_folder import open_run_folder, write_text
from sim.rollout.store import EpisodeStore
from sim.rollout.types import RolloutError
from sim.sweep.parquet import NAME, write_parquet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from leanvla.commands.sweep import Sweep
    from leanvla.commands.sweep_plan import SweepRun
    from sim.rollout.runner import Jobs
    from sim.rollout.types import Beat
    from sim.sweep.store import SweepStore

    Listen = Callable[[Beat], None]
    MakePool = Callable[[SweepRun, Listen], AbstractContextManager[Jobs]]

_ANY = frozenset(field.name for field in dataclasses.fields(Rollout))


def work(config: Sweep, runs: Sequence[SweepRun], store: SweepStore, path: Path) -> int:
    """Run all that is missing, write tables and reports; gives the exit code.

    Raises:
        UsageError: for a batched policy without Ray.
        EnvironmentFault: when this machine cannot do the job.
        RolloutError: when the sweep could not go on; what was finished is kept and written.
    """
    check_parquet()
    for run in runs:
        check_machine(run.config)
        with_engines(run.config, run.plan, run.spec)  # for its checks: nothing new is chosen
        if run.spec.batch > 1 and config.ray is None:
            raise UsageError(
                f"{run.title}: a batched policy is shared between environments by Ray: add "
                "--ray local, or leave `batch` out"
            )
    with store.lock(), terminate_as_interrupt():
        write_text(store.folder / "sweep.yaml", path.read_text(encoding="utf-8"))
        for run in runs:
            folder = open_run_folder(run.config.out, run.config, resume=True, ignore=_ANY)
            write_environment(folder, run.provenance)
            run.stored.write()
            if config.retry_errors and (count := run.stored.forget_errors()):
                _say(f"{run.title}: {count} episode(s) that ended in an error run again")
        try:
            with _pools(config) as make_pool:
                _run_all(runs, make_pool)
        except KeyboardInterrupt:
            _say(
                f"interrupted: what is finished is kept in {store.folder}; the same command goes on"
            )
            return INTERRUPTED
        finally:
            write_parquet(store.folder / NAME, store.runs())
    shown = show_status(store.folder, as_json=config.json)
    return CHECK_FAILED if shown.unjudged or any(run.todo() for run in runs) else 0


def _run_all(runs: Sequence[SweepRun], make_pool: MakePool) -> None:
    todo = [len(run.todo()) for run in runs]
    planned = sum(run.plan.episodes for run in runs)
    for number, run in enumerate(runs):
        left = sum(todo[number + 1 :])
        done = planned - run.plan.episodes - left
        _run_one(run, make_pool, others=(done, planned - run.plan.episodes))


def _run_one(run: SweepRun, make_pool: MakePool, others: tuple[int, int]) -> None:
    from leanvla.report.live import LiveProgress
    from sim.rollout.runner import run_grid

    missing = len(run.todo())
    with EpisodeStore(run.stored.folder / "episodes.jsonl") as store:
        if store.notice:
            _say(f"{run.title}: {store.notice}")
        results = Results(run.config, run.stored.plan(), store, run.provenance)
        if not missing and results.on_disk():
            return
        share = {(cell, seed) for seed in run.plan.seeds for cell in run.plan.cells}
        done = [record for record in store if (record.cell, record.seed) in share]
        progress = LiveProgress(run.plan, done, others, run.title)
        try:
            if missing:
                with make_pool(run, progress.beat) as pool, progress:
                    run_grid(run.plan, pool, store, progress.episode)
        except (KeyboardInterrupt, RolloutError):
            results.write(notice=f"Stopped with {len(store)} episodes; the same command goes on.")
            raise
        results.write()


@contextlib.contextmanager
def _pools(config: Sweep) -> Iterator[MakePool]:
    """What makes the pool of a run: processes of this machine, or actors of a Ray cluster."""
    if config.ray is None:
        from sim.rollout.pool import Pool

        def local(run: SweepRun, listen: Listen) -> AbstractContextManager[Jobs]:
            spec = replace(run.spec, log=str(run.stored.folder / "workers.log"))
            return Pool(spec, config.workers or os.cpu_count() or 1, listen)

        yield local
        return
    from sim.sweep.ray_pool import RayCluster, RayOptions

    options = RayOptions(config.ray, config.workers, config.gpus, config.policies)
    with RayCluster(options) as cluster:
        _say(f"Ray: {cluster.describe()}")
        yield lambda run, listen: cluster.pool(run.spec, run.plan.swap, listen)


def _say(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)
