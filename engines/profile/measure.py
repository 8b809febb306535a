"""Measuring: cells take turns in every round, so that whatever the machine does meets all of them.

A *cell* is one way to answer a query (dense, or a method at a keep ratio). In every round each cell
answers the same query once, in an order drawn anew, and rounds are what the statistics resample.
Nothing is tuned for the measurement: garbage collection stays on, no clock is locked.
"""

from __future__ import annotations

import random
import resource
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from engines.profile.conditions import Reading

Span = tuple[str, float, float]
"""A stretch of a phase: its name, its start and its end, ms from the start of the query."""


@dataclass(frozen=True)
class Spent:
    """What a cell says of the query that it just answered.

    Attributes:
        spans: where its time went; a phase may come in several stretches.
        warmup: True when this query did not do yet what later ones do.
    """

    spans: tuple[Span, ...] = ()
    warmup: bool = False


@dataclass(frozen=True)
class Sample:
    """One query of one cell.

    Attributes:
        cell: name of the cell.
        round: round that it belongs to; the warm-up rounds are counted, too.
        start_s: when it began, seconds from the start of the measurement.
        query_ms: wall time, device idle before and after.
        cpu_ms: processor time of all threads of this process meanwhile.
        spans: see `Spent`.
        warmup: in a warm-up round, or said by the cell.
        preempted: how often the kernel took the processor away meanwhile.
        throttled: the machine slowed itself down in this round.
    """

    cell: str
    round: int
    start_s: float
    query_ms: float
    cpu_ms: float
    spans: tuple[Span, ...] = ()
    warmup: bool = False
    preempted: int = 0
    throttled: bool = False

    @property
    def phase_ms(self) -> dict[str, float]:
        """Time of every phase, all its stretches together."""
        phases: dict[str, float] = {}
        for name, start, end in self.spans:
            phases[name] = phases.get(name, 0.0) + end - start
        return phases

    @property
    def gap_ms(self) -> float:
        """What the phases leave of the query."""
        return self.query_ms - sum(self.phase_ms.values())


@dataclass(frozen=True)
class Schedule:
    """How a measurement is carried out.

    Attributes:
        rounds: rounds that count.
        warmup: rounds before them, kept apart.
        seed: of the order of cells within a round.

    Raises:
        ValueError: for a number of rounds that measures nothing.
    """

    rounds: int = 50
    warmup: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse impossible numbers."""
        if self.rounds < 1:
            raise ValueError(f"rounds is {self.rounds}: give at least one")
        if self.warmup < 0:
            raise ValueError(f"warm-up is {self.warmup} rounds: give none or more")


def measure(
    cells: Mapping[str, Callable[[int], Spent]],
    schedule: Schedule,
    *,
    read: Callable[[], Reading] | None = None,
    synchronize: Callable[[], None] | None = None,
    each_round: Callable[[int], None] | None = None,
) -> list[Sample]:
    """Let all cells answer the query of every round.

    Args:
        cells: by name; each gets the number of the round.
        schedule: how many rounds, how many of them warm-up.
        read: looks at clocks, temperature and power after each round.
        synchronize: waits until the device is idle, e.g. `torch.cuda.synchronize`.
        each_round: told after every round, for a progress bar.

    Returns:
        Every sample, warm-up included, in the order of measuring.
    """
    order = random.Random(schedule.seed)
    names = list(cells)
    samples: list[Sample] = []
    epoch = time.perf_counter()
    for number in range(schedule.warmup + schedule.rounds):
        order.shuffle(names)
        taken = [
            _one(name, cells[name], number, epoch, synchronize, number < schedule.warmup)
            for name in names
        ]
        throttled = bool(read().throttled) if read is not None else False
        samples += _marked(taken, throttled)
        if each_round is not None:
            each_round(number)
    return samples


def _one(
    name: str,
    query: Callable[[int], Spent],
    number: int,
    epoch: float,
    synchronize: Callable[[], None] | None,
    warmup: bool,
) -> Sample:
    if synchronize is not None:
        synchronize()
    switches = _preempted()
    cpu, start = time.process_time(), time.perf_counter()
    spent = query(number)
    if synchronize is not None:
        synchronize()
    end = time.perf_counter()
    return Sample(
        cell=name,
        round=number,
        start_s=start - epoch,
        query_ms=(end - start) * 1e3,
        cpu_ms=(time.process_time() - cpu) * 1e3,
        spans=spent.spans,
        warmup=warmup or spent.warmup,
        preempted=_preempted() - switches,
    )


def _preempted() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw


def _marked(samples: Sequence[Sample], throttled: bool) -> Sequence[Sample]:
    if not throttled:
        return samples
    from dataclasses import replace

    return [replace(sample, throttled=True) for sample in samples]
