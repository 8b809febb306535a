"""`leanvla demos`: demonstrations of a suite's scripted expert, as shards for training."""

from __future__ import annotations

import json
import math
import os
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from leanvla.commands.rollout_checks import check_expert, check_suite_ready
from leanvla.errors import CHECK_FAILED, EnvironmentFault, UsageError
from leanvla.report.training import write_demos_report
from leanvla.run_folder import open_run_folder, write_json
from sim.demos import EVAL_SEED_LIMIT, TRAIN_SEED_BASE, collect
from sim.render import check_gl
from sim.suites import SUITES, suite_spec, unknown_suite

if TYPE_CHECKING:
    from sim.demos import Collection

SCHEMA = "leanvla.demos/1"
_LEAST_SUCCESS = 0.95


@dataclass(frozen=True)
class Demos:
    """Collect demonstrations of the scripted expert. An interrupted collection continues.

    Attributes:
        suite: suite to demonstrate.
        episodes: episodes to try; consecutive seeds walk through all instructions in turn.
        seed: first seed; held-out evaluation owns the seeds below 100,000.
        noise: sigma of the noise on executed actions (half of the steps), in action units; labels
            stay clean.
        view_size: side of the recorded frames, pixels; the suite's own when left out. The small
            recipes of `leanvla train` read 96.
        render_profile: `default`, `fast` or `lowpoly`; the suite's own when left out. A policy acts
            best in frames that are rendered as those it learnt from.
        workers: simulator processes; 0 means one per core.
        out: folder of the shards.
    """

    suite: str = "tabletop"
    episodes: int = 1500
    seed: int = TRAIN_SEED_BASE
    noise: float = 0.4
    view_size: int | None = None
    render_profile: str | None = None
    workers: int = 0
    out: Path = Path("data/demos")


def run(config: Demos) -> int:
    """Collect, then print counts as JSON; returns the exit code.

    Raises:
        UsageError: on values that ask for something impossible, or for held-out seeds.
        EnvironmentFault: when this machine cannot render.
    """
    _check(config)
    gl = check_gl()
    if not gl.ok:
        raise EnvironmentFault(f"{gl.problem}: {gl.remedy}")
    out = open_run_folder(config.out, config, resume=True)
    total = collect(
        config.suite,
        range(config.seed, config.seed + config.episodes),
        out,
        noise=config.noise,
        view_size=config.view_size,
        render_profile=config.render_profile,
        workers=config.workers or os.cpu_count() or 1,
        on_shard=_report,
    )
    rate = total.kept / config.episodes
    metrics = {"schema": SCHEMA, **asdict(total), "expert_success_rate": rate}
    write_json(out / "metrics.json", metrics)
    write_demos_report(out, config.suite, metrics)
    print(json.dumps(metrics, indent=2))
    return 0 if rate >= _LEAST_SUCCESS else CHECK_FAILED


def _check(config: Demos) -> None:
    if config.suite not in SUITES:
        raise UsageError(str(unknown_suite(config.suite)))
    check_expert(config.suite)
    check_suite_ready(config.suite)
    suite_spec(config.suite, render_profile=config.render_profile)
    if config.episodes < 1:
        raise UsageError(f"--episodes is {config.episodes}: ask for at least one")
    if config.seed < EVAL_SEED_LIMIT:
        raise UsageError(
            f"--seed is {config.seed}: seeds below {EVAL_SEED_LIMIT} are held out for evaluation, "
            f"start at {TRAIN_SEED_BASE}"
        )
    if config.view_size is not None and config.view_size < 8:
        raise UsageError(f"--view-size is {config.view_size}: give 8 pixels or more")
    if config.workers < 0:
        raise UsageError(f"--workers is {config.workers}: give 0 for one per core, or more")
    if not 0.0 <= config.noise < math.inf:
        raise UsageError(f"--noise is {config.noise}: give a sigma of 0 or more")


def _report(shard: int, done: Collection) -> None:
    print(f"shard {shard}: {done.kept} kept, {done.failed} failed", file=sys.stderr, flush=True)
