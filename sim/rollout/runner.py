"""The grid: every cell on the same seeds and the same initial states, side by side in time.

Jobs run seed by seed, all cells of a seed together, so that dense and pruned latencies see the same
hour of the same machine, and so that an interrupted run is a smaller run and not a lopsided one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import msgspec

from sim.rollout.types import DENSE, Cell, EpisodeRecord, Job, Recording, RolloutError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from sim.rollout.store import EpisodeStore
    from sim.rollout.types import Done

FILM_SIZE = 256


class Jobs(Protocol):
    """Whatever runs jobs; `sim.rollout.pool.Pool` does."""

    def run(self, jobs: Iterable[Job]) -> Iterator[Done]:
        """Run every job and give each result as it comes."""
        ...


@dataclass(frozen=True)
class Plan:
    """What is to be run.

    Attributes:
        cells: squares of the grid, dense first.
        seeds: one scene per seed, the same for every cell.
        swap: tell the policy another valid instruction, judge the original.
        block: seeds that one cell runs before the next cell; above 1 where environments of the
            same cell share forward passes.
    """

    cells: tuple[Cell, ...]
    seeds: tuple[int, ...]
    swap: bool = False
    block: int = 1

    @property
    def episodes(self) -> int:
        """Episodes in the whole grid."""
        return len(self.cells) * len(self.seeds)


def grid(methods: Sequence[str], keeps: Sequence[float]) -> tuple[Cell, ...]:
    """The cells of a grid: dense once, as the reference, then each method at each keep ratio."""
    pruned = (Cell(method, keep) for method in methods if method != DENSE for keep in keeps)
    return (Cell(DENSE, 1.0), *dict.fromkeys(pruned))


def run_grid(
    plan: Plan,
    pool: Jobs,
    store: EpisodeStore,
    listen: Callable[[EpisodeRecord], None] = lambda record: None,
) -> None:
    """Run what `store` does not have yet; every episode is stored before anyone is told.

    A method that keeps everything is the dense model bit for bit, so its episodes are dense's own,
    marked as reused.

    Args:
        plan: cells and seeds.
        pool: runs the jobs.
        store: takes the episodes.
        listen: told of every new episode.

    Raises:
        RolloutError: when two cells began the same seed from different initial states, or when the
            pool gives up.
    """
    hashes = SeedHashes()
    for record in store:
        hashes.check(record)
    todo = [job for job in _jobs(plan) if (job.cell, job.seed) not in store]
    results = pool.run(job for job in todo if computes(job.cell))
    reused = [cell for cell in plan.cells if not computes(cell)]

    def keep(record: EpisodeRecord) -> None:
        hashes.check(record)
        store.append(record)
        listen(record)

    for seed in plan.seeds:  # what an earlier run computed but did not copy yet
        _copy_dense(store, seed, reused, keep)
    for done in results:
        keep(done.record)
        if done.record.method == DENSE:
            _copy_dense(store, done.record.seed, reused, keep)


def record_episodes(
    plan: Plan, pool: Jobs, chosen: Iterable[EpisodeRecord], size: int = FILM_SIZE
) -> list[Recording]:
    """Run chosen episodes once more with the camera on.

    The same seed and policy give the same episode, so nothing needs to be filmed in advance, and
    filming costs the measured episodes no time.

    Args:
        plan: the plan the episodes come from.
        pool: runs the jobs.
        chosen: finished episodes.
        size: edge of a frame, pixels.

    Returns:
        The recordings in the order of `chosen`; one that was lost is absent.
    """
    jobs = [Job(record.cell, record.seed, plan.swap, film=size) for record in chosen]
    order = {(job.cell, job.seed): i for i, job in enumerate(jobs)}
    found = [done.recording for done in pool.run(jobs) if done.recording]
    return sorted(found, key=lambda film: order[film.record.cell, film.record.seed])


def choose_videos(plan: Plan, store: EpisodeStore, most: int) -> list[EpisodeRecord]:
    """At most `most` episodes worth seeing: of each cell the first success and the first failure.

    The lowest keep ratio comes first and the reference last: pruning shows where it is hardest.
    """
    chosen: list[EpisodeRecord] = []
    for cell in sorted(filter(computes, plan.cells), key=lambda cell: cell.keep):
        for outcome in ("success", "failure"):
            matching = (record for record in store.of(cell) if record.outcome == outcome)
            chosen += [record for record in [next(matching, None)] if record]
    return chosen[:most]


def choose_overlays(plan: Plan, store: EpisodeStore) -> list[EpisodeRecord]:
    """One episode of every pruning method at its lowest keep ratio, all on the same seed if any."""
    pruned = [cell for cell in plan.cells if cell.pruned]
    lowest = {
        cell.method: min(c.keep for c in pruned if c.method == cell.method) for cell in pruned
    }
    records = {
        method: {r.seed: r for r in store.of(Cell(method, keep)) if r.outcome != "error"}
        for method, keep in lowest.items()
    }
    shared = [seed for seed in plan.seeds if all(seed in found for found in records.values())]
    if shared:
        return [found[shared[0]] for found in records.values()]
    return [next(iter(found.values())) for found in records.values() if found]


def _jobs(plan: Plan) -> Iterator[Job]:
    for start in range(0, len(plan.seeds), plan.block):
        seeds = plan.seeds[start : start + plan.block]
        yield from (Job(cell, seed, plan.swap) for cell in plan.cells for seed in seeds)


def computes(cell: Cell) -> bool:
    """Whether a cell needs episodes of its own; one that keeps everything has dense's."""
    return cell.method == DENSE or cell.pruned


def _copy_dense(
    store: EpisodeStore, seed: int, cells: Sequence[Cell], keep: Callable[[EpisodeRecord], None]
) -> None:
    dense = store.get(Cell(DENSE, 1.0), seed)
    if dense is None:
        return
    for cell in cells:
        if (cell, seed) not in store:
            keep(msgspec.structs.replace(dense, method=cell.method, reused_from=DENSE))


class SeedHashes:
    """Every cell must begin a seed from the same initial state, or nothing is paired."""

    def __init__(self) -> None:
        self._first: dict[int, EpisodeRecord] = {}

    def check(self, record: EpisodeRecord) -> None:
        """Compare an episode with the first one of its seed.

        Raises:
            RolloutError: when they began from different initial states.
        """
        if record.outcome == "error":
            return
        first = self._first.setdefault(record.seed, record)
        if first.init_state_hash != record.init_state_hash:
            raise RolloutError(
                f"seed {record.seed} began differently in {first.cell} ({first.init_state_hash}) "
                f"and {record.cell} ({record.init_state_hash}): the suite does not repeat a seed, "
                "so the cells cannot be compared"
            )
