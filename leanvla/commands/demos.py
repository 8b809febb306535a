"""`leanvla demos`: demonstrations of a suite's scripted expert, as shards for training."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sim.demos import EVAL_SEED_LIMIT, TRAIN_SEED_BASE, collect
from sim.render import check_gl
from sim.suites import SUITES, unknown_suite

if TYPE_CHECKING:
    from sim.demos import Collection

SCHEMA = 1
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
        workers: simulator processes; 0 means one per core.
        out: folder of the shards.
    """

    suite: str = "tabletop"
    episodes: int = 1500
    seed: int = TRAIN_SEED_BASE
    noise: float = 0.4
    workers: int = 0
    out: Path = Path("data/demos")


def run(config: Demos) -> int:
    """Collect, then print counts as JSON; returns the exit code."""
    problem = _usage_problem(config)
    if problem:
        print(problem, file=sys.stderr)
        return 2
    gl = check_gl()
    if not gl.ok:
        print(f"{gl.problem}: {gl.remedy}", file=sys.stderr)
        return 3
    seeds = range(config.seed, config.seed + config.episodes)
    total = collect(
        config.suite,
        seeds,
        config.out,
        noise=config.noise,
        workers=config.workers or os.cpu_count() or 1,
        on_shard=_report,
    )
    metrics = {"schema": SCHEMA, "suite": config.suite, "noise": config.noise, **asdict(total)}
    metrics["expert_success_rate"] = total.kept / config.episodes
    text = json.dumps(metrics, indent=2)
    (config.out / "metrics.json").write_text(text + "\n", encoding="utf-8")
    print(text)
    return 0 if metrics["expert_success_rate"] >= _LEAST_SUCCESS else 1


def _usage_problem(config: Demos) -> str:
    if config.suite not in SUITES:
        return str(unknown_suite(config.suite))
    if config.episodes < 1:
        return f"--episodes is {config.episodes}: ask for at least one"
    if config.seed < EVAL_SEED_LIMIT:
        return (
            f"--seed is {config.seed}: seeds below {EVAL_SEED_LIMIT} are held out for evaluation, "
            f"start at {TRAIN_SEED_BASE}"
        )
    if config.noise < 0:
        return f"--noise is {config.noise}: a sigma is not negative"
    return ""


def _report(shard: int, done: Collection) -> None:
    print(f"shard {shard}: {done.kept} kept, {done.failed} failed", file=sys.stderr, flush=True)
