"""Greedy loops compiled for the CPU where numba is installed; the same Python runs without it."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


@cache
def compiled(loop: Callable[..., Any], *, reorder: bool = False) -> Callable[..., Any] | None:
    """The machine code of a loop over numpy arrays; None without numba.

    Compiled on its first call, which takes a second or two, and kept on disk beside its source.

    Args:
        loop: the function to compile.
        reorder: sums and products may be reordered, once and for all, so that sums become vector
            code. Equal arrays still have equal sums, but `a * (b * c)` may lose its symmetry.
    """
    try:
        import numba
    except ImportError:
        return None
    options: dict[str, Any] = {"nogil": True, "fastmath": {"reassoc", "nsz"} if reorder else False}
    try:
        return numba.njit(cache=True, **options)(loop)
    except RuntimeError:  # nowhere to keep it: a read-only installation
        return numba.njit(**options)(loop)
