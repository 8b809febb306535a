"""Energy of a query: every cell answers alone for some seconds, between two looks at the meters.

Latency rounds change cells too fast for any meter, so this is a pass of its own after them. What is
reported is all that the metered part drew meanwhile, idling included; what it draws idle is beside.
"""

from __future__ import annotations

import contextlib
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from engines.profile.conditions import read_numbers, read_text

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from typing_extensions import Self

NOT_READABLE = "not readable here"
PERIOD_S = 0.02
IDLE_S = 1.0


class Meter(Protocol):
    """Counts the energy of one part of the machine while its context is open.

    Attributes:
        name: the part, e.g. `gpu`.
    """

    name: str

    def __enter__(self) -> Self:
        """Begin."""
        ...

    def __exit__(self, *_: object) -> None:
        """End."""
        ...

    def joules(self) -> float | None:
        """Energy since some moment; None when it cannot be told any more."""
        ...


class Counter:
    """A part whose hardware counts by itself.

    Args:
        name: the part.
        read: joules since some moment, or None.
    """

    def __init__(self, name: str, read: Callable[[], float | None]) -> None:
        self.name, self.joules = name, read

    def __enter__(self) -> Self:
        """The hardware counts already."""
        return self

    def __exit__(self, *_: object) -> None:
        """It goes on counting."""


class PowerIntegral:
    """A part that tells its power alone: looked at every 20 ms and added up.

    Args:
        name: the part.
        watts: power now, or None.
        clock: seconds.
    """

    def __init__(
        self,
        name: str,
        watts: Callable[[], float | None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name, self._watts, self._clock = name, watts, clock
        self._lock, self._end = threading.Lock(), threading.Event()
        self._total: float | None = 0.0
        self._last: tuple[float, float] | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        """Start looking."""
        self.look()
        self._thread = threading.Thread(target=self._go, name=f"{self.name} power", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop looking."""
        self._end.set()
        if self._thread is not None:
            self._thread.join()

    def joules(self) -> float | None:
        """Energy since the start."""
        self.look()
        with self._lock:
            return self._total

    def look(self) -> None:
        """Add what was drawn since the last look: the mean of both powers, for that long."""
        now, watts = self._clock(), self._watts()
        with self._lock:
            if watts is None or self._total is None:
                self._total = None
                return
            if self._last is not None:
                then, before = self._last
                self._total += (now - then) * (watts + before) / 2
            self._last = now, watts

    def _go(self) -> None:
        while not self._end.wait(PERIOD_S):
            self.look()


class Rapl:
    """Energy counters of x86 processor packages, from `/sys`; often for root alone.

    Args:
        root: where `/sys` hangs.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        zones = (root / "sys/class/powercap").glob("intel-rapl:?")
        self._zones = [z for z in sorted(zones) if (read_text(z / "name") or "").startswith("pack")]
        self._seen: dict[Path, float] = {}
        self._total = 0.0

    def joules(self) -> float | None:
        """Sum over packages since the first call, counters that begin anew included."""
        if not self._zones:
            return None
        for zone in self._zones:
            found = read_numbers([zone / "energy_uj"])
            if not found:
                return None
            before = self._seen.get(zone, found[0])
            span = read_numbers([zone / "max_energy_range_uj"])
            wrapped = span[0] if found[0] < before and span else 0.0
            self._total += found[0] - before + wrapped
            self._seen[zone] = found[0]
        return self._total / 1e6


def find_meters(root: Path = Path("/")) -> list[Meter]:
    """The meters of this machine that can be read now."""
    from engines.profile.jetson import JetsonSource
    from engines.profile.nvml import NvmlSource

    found: list[Meter] = []
    if JetsonSource.present(root):
        board = JetsonSource(root)
        found.append(PowerIntegral("board", lambda: board.values().get("power_w")))
    gpu = NvmlSource.open()
    if gpu is not None:
        found.append(Counter("gpu", gpu.joules))
        if gpu.joules() is None:
            found[-1] = PowerIntegral("gpu", lambda: gpu.values().get("power_w"))
    found.append(Counter("processor", Rapl(root).joules))
    return [meter for meter in found if _reads(meter)]


def measure_energy(
    cells: Mapping[str, Callable[[int], object]],
    seconds: float,
    meters: Sequence[Meter],
    *,
    first: int = 0,
    synchronize: Callable[[], None] | None = None,
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], None] = time.sleep,
) -> dict[str, Any] | None:
    """Let every cell answer for a while, one after the other.

    Args:
        cells: as in `measure`.
        seconds: how long each, at least.
        meters: what counts meanwhile.
        first: number of the first query.
        synchronize: waits until the device is idle.
        clock: seconds.
        sleep: waits so many seconds.

    Returns:
        `idle_w` by meter and, by cell, queries, seconds, and J per query and W by meter; None
        without a meter.
    """
    if not meters or seconds <= 0:
        return None
    found: dict[str, Any] = {"idle_w": {}, "cells": {}}
    with contextlib.ExitStack() as counting:
        for meter in meters:
            counting.enter_context(meter)
        before = _look(meters)
        began = clock()
        sleep(min(IDLE_S, seconds))
        found["idle_w"] = _rates(before, _look(meters), clock() - began)
        for name, query in cells.items():
            found["cells"][name] = _block(query, seconds, meters, first, synchronize, clock)
    return found


def _block(
    query: Callable[[int], object],
    seconds: float,
    meters: Sequence[Meter],
    first: int,
    synchronize: Callable[[], None] | None,
    clock: Callable[[], float],
) -> dict[str, Any]:
    before, began, count = _look(meters), clock(), 0
    while count == 0 or clock() - began < seconds:
        query(first + count)
        count += 1
    if synchronize is not None:
        synchronize()
    after, took = _look(meters), clock() - began
    return {
        "queries": count,
        "seconds": took,
        "j_per_query": _rates(before, after, count),
        "w": _rates(before, after, took),
    }


def _look(meters: Sequence[Meter]) -> dict[str, float | None]:
    return {meter.name: meter.joules() for meter in meters}


def _rates(
    before: Mapping[str, float | None], after: Mapping[str, float | None], by: float
) -> dict[str, float | str]:
    """Joules between two looks, by a number of queries or of seconds."""
    rates: dict[str, float | str] = {}
    for name, then in before.items():
        now = after[name]
        rates[name] = NOT_READABLE if then is None or now is None else (now - then) / by
    return rates


def _reads(meter: Meter) -> bool:
    """Whether it tells anything; one that only integrates has just begun."""
    return meter.joules() is not None
