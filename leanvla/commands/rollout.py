"""`leanvla rollout`: a policy acts in simulation, dense and pruned, on the same seeds."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from leanvla.errors import INTERRUPTED
from sim.rollout.types import RolloutError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from leanvla.commands.rollout_results import Results
    from sim.rollout.runner import Plan
    from sim.rollout.store import EpisodeStore
    from sim.rollout.worker import WorkerSpec

# How a run is carried out or shown; may differ when it is resumed.
NOT_COMPARED = ("out", "resume", "workers", "video", "rerun", "json", "record", "redact", "truth")


@dataclass(frozen=True)
class Rollout:
    """Roll a policy out over a grid of pruning methods and keep ratios.

    Every cell runs on the same seeds and initial states, beside the dense model. Writes
    `episodes.jsonl`, `metrics.json`, `report.html` and videos into `out`.

    Attributes:
        suite: suite of tasks.
        policy: packaged policy, checkpoint folder, `expert` for the suite's scripted expert, or
            `ws://host:port` for one that is served.
        engine: `auto` runs every cell that can be a graph on ONNX Runtime and says which cannot;
            `torch` runs all of them eagerly; or the folder of an exported engine.
        method: pruning methods, separated by commas; `dense` always runs as the reference.
        keep: keep ratios in (0, 1], separated by commas.
        episodes: episodes per cell.
        seed: first seed; a seed is a scene and its task. Seeds below 100,000 are held out.
        workers: episode workers; 0 means one per core.
        out: folder of the results.
        resume: go on in `out`; finished episodes are kept.
        execute: control steps executed of each chunk; the policy's own choice when left out.
        swap_instruction: tell the policy another valid instruction, judge the original.
        option: fields of the pruning methods, e.g. `window=5 gamma=0.7`, or `compat=release`.
        unnorm_key: data set whose statistics give actions their units.
        render_profile: `default`, `fast` or `lowpoly`; the suite's own when left out.
        view_size: side of the frames that the policy sees, pixels; the suite's own when left out.
        views: cameras to show, separated by commas; all when left out.
        perturb: perturbations of every episode, e.g. `camera:0.05,lighting:0.3,paraphrase:1`.
        threads: threads of each policy process.
        sim_timeout: seconds without an answer after which a simulator is ended.
        video: episodes to record as MP4.
        rerun: write the recorded episodes to this `.rrd` file, too.
        record: folder that takes one MCAP bag per episode, for `leanvla replay`; every control step
            is rendered then.
        redact: what is done to recorded pictures: `none`, `mosaic`, or `drop`.
        truth: record what every query kept of the object, the gripper and the goal, by the
            simulator's segmentation; for `leanvla report`. Renders every look once more.
        json: print `metrics.json` instead of the table.
    """

    suite: str = "tabletop"
    policy: str = "mini"
    engine: str = "auto"
    method: str = "vla_pruner"
    keep: str = "0.25"
    episodes: int = 50
    seed: int = 0
    workers: int = 2
    out: Path = Path("runs/rollout")
    resume: bool = False
    execute: int | None = None
    swap_instruction: bool = False
    option: tuple[str, ...] = ()
    unnorm_key: str | None = None
    render_profile: str | None = None
    view_size: int | None = None
    views: str = ""
    perturb: str = ""
    threads: int = 1
    sim_timeout: float = 60.0
    video: int = 2
    rerun: Path | None = None
    record: Path | None = None
    redact: Literal["none", "mosaic", "drop"] = "none"
    truth: bool = False
    json: bool = False


def run(config: Rollout) -> int:
    """Check everything, run what is missing, write and print the results; gives the exit code.

    Raises:
        UsageError: for an impossible configuration, before anything starts; for a folder that holds
            episodes of other weights or assets.
        EnvironmentFault: when this machine cannot render, or lacks a package.
        RolloutError: when the run could not go on; what was finished is kept and written.
        IdlePrunerError: when a pruner never ran.
    """
    from leanvla.commands.rollout_engine import with_engines
    from leanvla.commands.rollout_plan import check_machine, make_plan, make_spec
    from leanvla.commands.rollout_provenance import settle_provenance, write_environment
    from leanvla.commands.rollout_results import Results
    from leanvla.run_folder import open_run_folder
    from sim.rollout.store import EpisodeStore

    plan, spec = make_plan(config), make_spec(config)
    check_machine(config)
    spec = with_engines(config, plan, spec)
    provenance = settle_provenance(config.out, spec)
    folder = open_run_folder(config.out, config, resume=config.resume, ignore=NOT_COMPARED)
    write_environment(folder, provenance)
    spec = replace(spec, log=str(folder / "workers.log"))
    with EpisodeStore(folder / "episodes.jsonl") as store, terminate_as_interrupt():
        if store.notice:
            _say(store.notice)
        results = Results(config, plan, store, provenance, spec.policy)
        return _work(config, plan, spec, store, results)


def _work(
    config: Rollout, plan: Plan, spec: WorkerSpec, store: EpisodeStore, results: Results
) -> int:
    if len(store) == plan.episodes and results.on_disk():
        _say(f"nothing to do: all {plan.episodes} episodes are in {config.out}")
        return results.show()
    kept = "{} of {} episodes"
    try:
        _roll(config, plan, spec, store, results)
    except KeyboardInterrupt:
        kept = kept.format(len(store), plan.episodes)
        results.write(notice=f"Interrupted: these are {kept}; go on with --resume.")
        _say(f"interrupted: {kept} kept in {config.out}, go on with --resume")
        return INTERRUPTED
    except RolloutError:
        results.write(notice=f"Stopped: these are {kept.format(len(store), plan.episodes)}.")
        raise
    results.write()
    return results.show()


def _roll(
    config: Rollout, plan: Plan, spec: WorkerSpec, store: EpisodeStore, results: Results
) -> None:
    from leanvla.report.live import LiveProgress
    from sim.rollout.pool import Pool
    from sim.rollout.runner import run_grid

    progress = LiveProgress(plan, list(store))
    with Pool(spec, config.workers or os.cpu_count() or 1, progress.beat) as pool:
        with progress:
            run_grid(plan, pool, store, progress.episode)
        results.film(pool)


@contextlib.contextmanager
def terminate_as_interrupt() -> Iterator[None]:
    """SIGTERM (a scheduler's time limit) ends a run like Ctrl-C: with everything kept."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _say(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)
