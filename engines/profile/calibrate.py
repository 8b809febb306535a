"""What this processor really reaches: the rate of large matrix products, and of reading memory.

Measured in processor time of one thread, so that other work on the machine matters less, and as the
best of several tries: a peak is what the machine can do, not what it did on average.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np

from engines.profile.roofline import Peak

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

SIDE = 1024
"""Side of the matrices that are multiplied: large enough for full speed, 4 MB each in float32."""

BYTES = 128 << 20
"""Size of the matrix that is read once: far beyond any processor's caches."""


def measure_processor(dtype: torch.dtype, tries: int = 5) -> Peak:
    """Peak rates of one thread of this processor.

    Args:
        dtype: floating-point type of the products.
        tries: the best of so many counts.
    """
    import torch

    a, b = (torch.randn(SIDE, SIDE).to(dtype) for _ in range(2))
    product_s = best_s(lambda: a @ b, tries)
    rows = BYTES // (4 * SIDE)
    wide, column = torch.randn(rows, SIDE), torch.randn(SIDE)
    read_s = best_s(lambda: wide @ column, tries)
    return Peak("one thread of this processor", 2 * SIDE**3 / product_s, BYTES / read_s)


def product_flop_per_s(tries: int = 5) -> float:
    """Rate of large float32 matrix products on one thread, by numpy: no torch is needed."""
    rng = np.random.default_rng(0)
    a, b = (rng.random((SIDE, SIDE), np.float32) for _ in range(2))
    return 2 * SIDE**3 / best_s(lambda: a @ b, tries)


def best_s(work: Callable[[], object], tries: int) -> float:
    """Least processor time of some work, after one run that does not count."""
    work()
    times = []
    for _ in range(tries):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return min(times)
