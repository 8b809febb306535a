"""Selection times on one CPU thread: `python -m pruning.bench [TOKENS ...]`.

Methods take turns within every round, so a busy machine slows all of them alike. Times are those of
the thread's own processor time. The share is that of a dense query: the prefill of a decoder of 7 B
parameters on as many visual tokens, its multiply-accumulates at the rate that one matrix product
reaches on this thread.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, replace
from statistics import median

from pruning.example import example_context
from pruning.registry import METHODS, make_method

TOKENS = (256, 576, 1024, 2880)
WIDTH = 4096
KEEP = 0.25
ROUNDS = 5
WARMUP = 1
LAYERS, MLP, TEXT = 32, 11008, 35
PASSES = {"zoo_prune": "zoo_prune:directions=1"}
"""Spelt with fewer passes through the model, which are counted apart."""


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
    return [*listed, "sparsevlm:recycled=0.3", "vla_pruner:release"]


def measure(shape: tuple[int, int, int], rounds: int = ROUNDS) -> list[Row]:
    """Time `select` of every method at one shape, interleaved; one thread while it lasts."""
    import torch

    methods = {name: make_method(name, keep=1.0 if name == "dense" else KEEP) for name in names()}
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


def main() -> None:
    """Write the table to standard output, tab separated."""
    write = sys.stdout.write
    write("method\ttokens\tp50_us\tbest_us\tshare_of_dense_query\n")
    for tokens in [int(text) for text in sys.argv[1:]] or TOKENS:
        dense = dense_query_us(tokens)
        for row in measure((1, tokens, WIDTH)):
            times = f"{row.p50_us:.0f}\t{row.best_us:.0f}\t{row.p50_us / dense:.3%}"
            write(f"{row.method}\t{tokens}\t{times}\n")


if __name__ == "__main__":
    main()
