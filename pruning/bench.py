"""Selection times on one CPU thread: `python -m pruning.bench`.

Methods take turns within every round, so a busy machine slows all of them alike.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from statistics import median

from pruning.registry import METHODS, make_method
from pruning.types import Budget, PruneContext

SHAPES = ((2, 144, 192), (2, 256, 192), (2, 256, 4096))
KEEP = 0.25
ROUNDS = 100
WARMUP = 5


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


def example_context(shape: tuple[int, int, int], keep: float = KEEP) -> PruneContext:
    """A random context with every row kind and a forecast."""
    import torch

    generator = torch.Generator().manual_seed(0)
    groups, n, _ = shape
    rows = {
        kind: torch.rand(groups, n, generator=generator)
        for kind in ("last", "prefill", "text", "action", "forecast")
    }
    history = rows.pop("forecast")
    features = torch.randn(shape, generator=generator)
    return PruneContext(features, Budget(keep).tokens(n), rows, history)


def measure(shape: tuple[int, int, int], rounds: int = ROUNDS) -> list[Row]:
    """Time `select` of every method at one shape, interleaved; one thread while it lasts."""
    import torch

    methods = {name: make_method(name, keep=1.0 if name == "dense" else KEEP) for name in METHODS}
    methods["vla_pruner (release)"] = make_method("vla_pruner", keep=KEEP, compat="release")
    ctx = example_context(shape)
    times: dict[str, list[float]] = {name: [] for name in methods}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for turn in range(WARMUP + rounds):
            for name, method in methods.items():
                start = time.perf_counter()
                method.select(ctx)
                if turn >= WARMUP:
                    times[name].append((time.perf_counter() - start) * 1e6)
    finally:
        torch.set_num_threads(threads)
    return [Row(name, shape, median(cell), min(cell)) for name, cell in times.items()]


def main() -> None:
    """Write the table to standard output, tab separated."""
    write = sys.stdout.write
    write("method\tgroups x tokens x width\tp50_us\tbest_us\n")
    for shape in SHAPES:
        for row in measure(shape):
            size = " x ".join(map(str, shape))
            write(f"{row.method}\t{size}\t{row.p50_us:.0f}\t{row.best_us:.0f}\n")


if __name__ == "__main__":
    main()
