"""Corrections: the policy drives, the expert says what it would have done, then takes over.

DAgger (Ross et al. 2011) with a take-over at a random time: the first part labels states that the
policy visits by itself, the second part shows the way back from them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from policy.registry import load_policy
from sim.demos import (
    SETTLE_STEPS,
    EpisodeBuffer,
    Look,
    by_scene,
    ground,
    portions,
    run_jobs,
    write_shard,
)
from sim.suites import make_suite

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from jaxtyping import Float32

    from policy.types import Policy
    from sim.demos import Episode
    from sim.suites.base import TrainingSuite

EARLIEST_TAKE_OVER, LATEST_TAKE_OVER = 10, 140
"""Steps; the latter for demonstrations of 78 steps on average, see `latest_take_over`."""


@dataclass(frozen=True)
class Correction:
    """One shard's worth of corrected episodes.

    Attributes:
        policy: name or folder of the policy that drives.
        suite: where.
        seeds: one episode each.
        out: file to write.
        view_size: side of the frames, px; None takes the suite's own.
        render_profile: how frames are rendered; None takes the suite's own.
        latest: step before which the expert takes over.
    """

    policy: str
    suite: str
    seeds: tuple[int, ...]
    out: Path
    view_size: int | None = None
    render_profile: str | None = None
    latest: int = LATEST_TAKE_OVER


def latest_take_over(demonstrations: Sequence[Episode]) -> int:
    """A step that a slow policy may reach: 1.8 demonstrations long, and above the earliest."""
    mean = float(np.mean([episode.steps for episode in demonstrations]))
    return max(EARLIEST_TAKE_OVER + 1, round(1.8 * mean))


def correct(
    suite: TrainingSuite,
    policy: Policy,
    seed: int,
    execute: int,
    latest: int = LATEST_TAKE_OVER,
) -> tuple[Episode, bool]:
    """One episode; also tells whether the policy succeeded before the expert took over.

    Args:
        suite: the simulator.
        policy: who drives first.
        seed: of the scene, and of the time of the take-over.
        execute: rows of a chunk that are executed before the policy is asked again.
        latest: step before which the expert takes over.
    """
    start = suite.reset(seed)
    rng = np.random.default_rng([seed, 2])
    take_over = int(rng.integers(EARLIEST_TAKE_OVER, latest))
    buffer = EpisodeBuffer(start.instruction, start.task, seed, source="dagger")
    state = policy.initial_state()
    plan: list[Float32[np.ndarray, " dof"]] = []
    success, alone, left = False, False, suite.spec.max_steps
    step = 0
    while left > 0:
        label, observation = suite.expert_action(), suite.observe()
        buffer.record(observation, label, ground(suite))
        action = label
        if step < take_over:
            if not plan:
                chunk, state, _ = policy.infer(observation, state)
                plan = list(chunk.actions[:execute])
            action = plan.pop(0)
        result = suite.step(action)
        step, left = step + 1, left - 1
        if result.success and not success:
            success, alone, left = True, step <= take_over, min(left, SETTLE_STEPS)
    return buffer.finish(success=success), alone


def collect_corrections(
    policy: str,
    suite: str,
    seeds: Sequence[int],
    out: Path,
    *,
    view_size: int | None = None,
    render_profile: str | None = None,
    latest: int = LATEST_TAKE_OVER,
    workers: int = 1,
    report: Callable[[int, int], None] | None = None,
) -> float:
    """Correct `policy` on every seed; shards that exist are not made again.

    Args:
        policy: name or folder.
        suite: name of the suite.
        seeds: one episode each.
        out: folder of the shards.
        view_size: side of the frames, px; None takes the suite's own.
        render_profile: how frames are rendered; None takes the suite's own.
        latest: step before which the expert takes over.
        workers: processes.
        report: called after each shard with episodes done and successes of the policy alone.

    Returns:
        Share of new episodes that the policy finished before the take-over.
    """
    jobs = []
    for part in portions(seeds):
        path = Path(out) / f"corrections-{part[0]:09d}.safetensors"
        if not path.exists():
            jobs.append(Correction(policy, suite, part, path, view_size, render_profile, latest))
    done = alone = 0
    for job, successes in zip(jobs, run_jobs(_correct_shard, jobs, workers), strict=True):
        done, alone = done + len(job.seeds), alone + successes
        if report is not None:
            report(done, alone)
    return alone / done if done else float("nan")


_LOADED: dict[tuple[str, str], tuple[TrainingSuite, Policy]] = {}


def _correct_shard(job: Correction) -> int:
    key = (job.suite, job.policy)
    if key not in _LOADED:
        profile = job.render_profile
        suite = make_suite(job.suite, render_profile=profile, view_size=job.view_size)
        _LOADED[key] = suite, load_policy(job.policy)
    suite, policy = _LOADED[key]
    execute = getattr(policy, "execute", None) or policy.action_spec.horizon
    results = [
        correct(suite, policy, seed, execute, job.latest) for seed in by_scene(job.seeds, suite)
    ]
    look = Look(job.suite, suite.spec.render_profile)
    write_shard(job.out, [episode for episode, _ in results], look)
    return sum(alone for _, alone in results)
