"""Selection times on one CPU thread, for `leanvla bench-methods`.

Methods take turns within every round, so a busy machine slows all of them alike. Times are those of
the thread's own processor time. The share is that of a dense query: the prefill of a decoder of 7 B
parameters on as many visual tokens, its multiply-accumulates at the rate that one matrix product
reaches on this thread.

Most of a choice by diversity or coverage is the product of every token with every other one; the
greedy loop that follows it is timed alone, too.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from functools import partial
from statistics import median
from typing import TYPE_CHECKING

from pruning import coverage, dpp, maxmin
from pruning.example import example_context
from pruning.jit import compiled
from pruning.registry import METHODS, make_method
from pruning.similarity import cosines

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

WIDTH = 4096
KEEP = 0.25
ROUNDS = 5
WARMUP = 1
LAYERS, MLP, TEXT = 32, 11008, 35
PASSES = {"zoo_prune": "zoo_prune:directions=1"}
"""Spelt with fewer passes through the model, which are counted apart."""

VARIANTS = (
    "divprune:sketch=128",
    "mmtok:sketch=128",
    "sparsevlm:recycled=0.3",
    "vla_pruner:release",
)


@dataclass(frozen=True)
class Row:
    """One measured cell.

    Attributes:
        method: name, with its profile; or which loop.
        shape: groups, tokens, width.
        p50_us: median time of one choice, microseconds.
        best_us: smallest time, microseconds.
    """

    method: str
    shape: tuple[int, int, int]
    p50_us: float
    best_us: float


def names() -> list[str]:
    """Every method whose selection is its own work; the oracle's is the model's."""
    listed = [PASSES.get(name, name) for name in METHODS if name != "oracle"]
    return [*listed, *VARIANTS]


def measure(
    shape: tuple[int, int, int], listed: Sequence[str] | None = None, rounds: int = ROUNDS
) -> list[Row]:
    """Time `select` of methods (all by default) at one shape, in turns; one thread while it lasts.

    Raises:
        MethodError: for an unknown method.
    """
    asked = names() if listed is None else listed
    methods = {name: make_method(name, keep=1.0 if name == "dense" else KEEP) for name in asked}
    ctx = example_context(shape, KEEP)
    contexts = {n: replace(ctx, memory=m.select(ctx).memory) for n, m in methods.items()}

    def choices() -> Iterator[tuple[str, Callable[[], object]]]:
        for name, method in methods.items():
            yield name, partial(method.select, contexts[name])

    return _in_turns(shape, choices, rounds)


def measure_loops(tokens: int, rounds: int = ROUNDS) -> list[Row]:
    """Time the greedy loops alone, of a quarter of the tokens: products are made before.

    They are those of `max_min` (divprune, todre, vla_pruner), `max_coverage` (mmtok) and `dpp_map`
    (cdpruner).
    """
    shape = (1, tokens, WIDTH)
    alike = cosines(example_context(shape, KEEP).features)
    chances = (alike / 0.2).softmax(-2)[0].numpy().copy()
    greedy = compiled(maxmin.greedy_loops) or maxmin.greedy
    cover = compiled(coverage.coverage_loops, reorder=True) or coverage.coverage_lazy
    square, k = alike[0].numpy(), tokens // 4

    def loops() -> Iterator[tuple[str, Callable[[], object]]]:
        yield "max_min", partial(greedy, square.copy(), k)  # eats its matrix
        yield "max_coverage", partial(cover, chances, k)
        yield "dpp_map", partial(dpp.dpp_greedy, square, k)

    return _in_turns(shape, loops, rounds)


def _in_turns(
    shape: tuple[int, int, int],
    jobs: Callable[[], Iterator[tuple[str, Callable[[], object]]]],
    rounds: int,
) -> list[Row]:
    """Each job once a round, on one thread; what `jobs` does to make one is not timed."""
    import torch

    times: dict[str, list[float]] = {}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for turn in range(WARMUP + rounds):
            for name, job in jobs():
                start = time.thread_time()
                job()
                took = (time.thread_time() - start) * 1e6
                if turn >= WARMUP:
                    times.setdefault(name, []).append(took)
    finally:
        torch.set_num_threads(threads)
    return [Row(name, shape, median(cell), min(cell)) for name, cell in times.items()]


def dense_query_us(tokens: int) -> float:
    """What the dense prefill would take on this thread, microseconds."""
    import torch

    n, d = tokens + TEXT, WIDTH
    macs = LAYERS * (4 * n * d * d + 2 * n * n * d + 3 * n * d * MLP)
    x, weight = torch.randn(n, d), torch.randn(d, 1024)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        x @ weight
        start = time.thread_time()
        x @ weight
        took = time.thread_time() - start
    finally:
        torch.set_num_threads(threads)
    return macs / (x.numel() * weight.shape[1]) * took * 1e6
