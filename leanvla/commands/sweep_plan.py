"""From a sweep's file to its runs: one rollout per suite and policy, checked before it starts."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from leanvla.commands.rollout import Rollout
from leanvla.commands.rollout_engine import AUTO, TORCH, with_engines
from leanvla.commands.rollout_plan import make_plan, make_spec
from leanvla.errors import UsageError
from policy.registry import is_engine, resolve_policy
from sim.rollout.runner import Plan, computes
from sim.rollout.store import read_episodes
from sim.rollout.types import EXPERT, Source
from sim.sweep.estimate import estimate, measured_seconds
from sim.sweep.identity import identity_of
from sim.sweep.provenance import provenance_in
from sim.sweep.store import Grid, SweepStore, extended
from sim.sweep.tasks import seeds_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from leanvla.commands.sweep_file import PolicyEntry, SuiteEntry, SweepFile
    from sim.rollout.types import Cell, EpisodeRecord
    from sim.rollout.worker import WorkerSpec
    from sim.sweep.estimate import Estimate
    from sim.sweep.store import StoredRun


@dataclass(frozen=True)
class SweepRun:
    """One suite and one policy.

    Attributes:
        config: as `leanvla rollout` would be asked for it; `out` is the run's folder.
        plan: cells and seeds of this machine's share.
        whole: cells and seeds of all machines together.
        spec: what the workers are told.
        stored: the run as it stands in the store.
    """

    config: Rollout
    plan: Plan
    whole: Grid
    spec: WorkerSpec
    stored: StoredRun

    @property
    def title(self) -> str:
        """`tabletop × mini`."""
        return self.stored.title

    @property
    def provenance(self) -> dict[str, dict[str, Any]]:
        """Weights, assets and packages of its identity."""
        return provenance_in(self.stored.file.identity)

    def todo(self) -> list[tuple[Cell, int]]:
        """Episodes of this share that are not in the store."""
        done = {(record.cell, record.seed) for record in self.stored.episodes()}
        pairs = ((cell, seed) for seed in self.plan.seeds for cell in self.plan.cells)
        return [pair for pair in pairs if pair not in done]


def make_runs(
    file: SweepFile, store: SweepStore, *, workers: int = 1, shard: tuple[int, int] = (1, 1)
) -> list[SweepRun]:
    """The runs of a sweep, those of a suite one after the other.

    Args:
        file: the sweep.
        store: where they are, or will be.
        workers: episode workers, for the record.
        shard: this machine's number and the number of machines; seeds are dealt in turn.

    Raises:
        UsageError: for a value that makes no sense.
        MixedRunsError: when the store holds a run under another configuration.
        ValueError: for an unknown suite, task, policy, method or field.
    """
    found = []
    for suite in file.suite_entries():
        for policy in file.policy_entries():
            if not policy.suites or suite.label in policy.suites:
                found.append(_make_run(file, suite, policy, store, workers, shard))
    return found


def estimate_run(run: SweepRun, costs: Sequence[Path] = ()) -> Estimate:
    """What the episodes that are missing will cost, from the store and from other folders."""
    records = [*run.stored.episodes(), *(r for path in costs for r in _records(path, run))]
    todo = [cell for cell, _ in run.todo() if computes(cell)]
    return estimate(todo, measured_seconds(records))


def _make_run(
    file: SweepFile,
    suite: SuiteEntry,
    policy: PolicyEntry,
    store: SweepStore,
    workers: int,
    shard: tuple[int, int],
) -> SweepRun:
    count = suite.seeds or file.seeds
    seeds = seeds_of(suite.name, range(file.first_seed, file.first_seed + count), suite.tasks)
    config = Rollout(
        suite=suite.name,
        policy=policy.name,
        engine=_engine(policy),
        method=",".join(file.methods),
        keep=",".join(str(keep) for keep in file.keep),
        episodes=count,
        seed=file.first_seed,
        workers=workers,
        execute=policy.execute,
        swap_instruction=file.swap_instruction,
        option=tuple(f"{name}={_option(value)}" for name, value in file.option.items()),
        unnorm_key=policy.unnorm_key,
        render_profile=suite.render_profile,
        view_size=suite.view_size,
        views=",".join(suite.views),
        perturb=suite.perturb,
        threads=policy.threads,
        sim_timeout=file.sim_timeout,
        truth=file.truth and policy.name != EXPERT,
        video=0,
    )
    plan = make_plan(config)
    spec = _with_policy(make_spec(config), policy)
    if policy.engine != TORCH:
        spec = with_engines(config, plan, spec)
    whole = Grid(plan.cells, seeds)
    share = replace(plan, seeds=seeds[shard[0] - 1 :: shard[1]], block=policy.batch)
    identity = identity_of(spec, swap=file.swap_instruction)
    stored = store.find(suite.label, policy.label, identity)
    return SweepRun(
        replace(config, out=stored.folder), share, whole, spec, extended(stored, [whole])
    )


def _with_policy(spec: WorkerSpec, policy: PolicyEntry) -> WorkerSpec:
    """The spec with what only a sweep's file can say of a policy."""
    placed = {"device": policy.device, "dtype": policy.dtype}
    given = {name: value for name, value in placed.items() if value is not None}
    if policy.batch > 1:
        _check_batch(policy)
    if given and (policy.name == EXPERT or ":" in policy.name):
        raise UsageError(f"policy {policy.label}: {', '.join(given)} is for checkpoints alone")
    options = {**spec.policy.options, **given}
    source = Source(spec.policy.name, options, spec.policy.method_options)
    return replace(spec, policy=source, batch=policy.batch)


def _engine(policy: PolicyEntry) -> str:
    """`--engine` of its rollout; `auto` where the policy brings a runtime of its own.

    Nothing is chosen for a checkpoint: which cells have an engine, and so where their reference
    runs, depends on what else is asked for, and an episode's address must not.

    Raises:
        UsageError: for an engine that a sweep cannot take.
    """
    if policy.engine == AUTO:
        raise UsageError(
            f"policy {policy.label}: `engine: auto` depends on what else is asked for: give torch, "
            "or the folder of an engine (leanvla export makes one)"
        )
    own = policy.name == EXPERT or ":" in policy.name or is_engine(resolve_policy(policy.name))
    if policy.engine == TORCH:
        return AUTO if own else TORCH
    if policy.batch > 1 or policy.dtype is not None:
        raise UsageError(
            f"policy {policy.label}: an engine has its own precision, and graphs of one "
            "observation: leave `batch` and `dtype` out"
        )
    return policy.engine


def _check_batch(policy: PolicyEntry) -> None:
    """Engines have graphs of one observation, and an expert lives in its own simulator."""
    if policy.name == EXPERT:
        raise UsageError("the expert has no forward pass to share: leave `batch` out")
    if ":" in policy.name:
        return
    if is_engine(resolve_policy(policy.name)):
        raise UsageError(
            f"policy {policy.label} is an engine, whose graphs take one observation: leave `batch` "
            "out, or give the checkpoint"
        )


def _option(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _records(folder: Path, run: SweepRun) -> list[EpisodeRecord]:
    """Episodes of the same suite and policy in a store, or in the folder of a rollout."""
    same = (run.stored.file.suite, run.stored.file.policy)
    stored = [r for r in SweepStore(folder).runs() if (r.file.suite, r.file.policy) == same]
    if stored:
        return [record for r in stored for record in r.episodes()]
    path = folder / "config.yaml"
    if not path.is_file():
        return []
    tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    if (tree.get("suite"), tree.get("policy")) != (run.config.suite, run.config.policy):
        return []
    return read_episodes(folder / "episodes.jsonl").records
