"""Selection times on one CPU thread, for `leanvla bench-methods`.

Methods take turns within every round, so a busy machine slows all of them alike. Times are those of
the thread's own processor time. The share is that of a dense query: the prefill of a decoder of 7 B
parameters on as many visual tokens, its multiply-accumulates at the rate that one matrix product
reaches on this thread.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from statistics import median
from typing import TYPE_CHECKING

from pruning.example import example_context
from pruning.registry import METHODS, make_method

if TYPE_CHECKING:
    from collections.abc import Sequence

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
        method: name, with its profile.
        shape: groups, tokens, width.
        p50_us: median time of one `select`, microseconds.
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
    import torch

    asked = names() if listed is None else listed
    methods = {name: make_method(name, keep=1.0 if name == "dense" else KEEP) for name in asked}
    ctx = example_context(shape, KEEP)
    contexts = {n: replace(ctx, memory=m.select(ctx).memory) for n, m in methods.items()}
    times: dict[str, list[float]] = {name: [] for name in methods}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for turn in range(WARMUP + rounds):
            for name, method in methods.items():
                start = time.thread_time()
                method.select(contexts[name])
                if turn >= WARMUP:
                    times[name].append((time.thread_time() - start) * 1e6)
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
