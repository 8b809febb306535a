"""What the machine was doing meanwhile: clocks, temperature, power, and whether it held back.

Every source reads what this machine offers and says of the rest that it is not readable. Paths hang
below a root, so that a recorded `/sys` can be read like a live one.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

NOT_READABLE = "not readable"
QUANTITIES = ("cpu_mhz", "gpu_mhz", "memory_mhz", "hottest_c", "power_w")


@dataclass(frozen=True)
class Reading:
    """One look at the machine.

    Attributes:
        at_s: seconds on the monotonic clock.
        values: what could be read, by the names in `QUANTITIES`.
        throttled: why the machine runs slower than it could; empty when nothing says so.
    """

    at_s: float
    values: Mapping[str, float] = field(default_factory=dict)
    throttled: tuple[str, ...] = ()


class Source(Protocol):
    """One way to look at the machine."""

    def facts(self) -> dict[str, str]:
        """What does not change during a measurement, e.g. the power mode."""
        ...

    def values(self) -> dict[str, float]:
        """Quantities that can be read now."""
        ...

    def throttled(self) -> list[str]:
        """Reasons that hold since the last call, in words."""
        ...


class Watch:
    """Looks at the machine through every source that it has.

    Args:
        sources: ways to look; those of this machine when left out. Where two know a quantity, the
            last one is believed.
    """

    def __init__(self, sources: Sequence[Source] | None = None) -> None:
        self.sources = list(find_sources() if sources is None else sources)
        self.readings: list[Reading] = []
        for source in self.sources:
            source.throttled()  # counters start now

    def read(self) -> Reading:
        """Look once, and remember it."""
        values: dict[str, float] = {}
        for source in self.sources:
            values |= source.values()
        reasons = [reason for source in self.sources for reason in source.throttled()]
        reading = Reading(time.monotonic(), values, tuple(reasons))
        self.readings.append(reading)
        return reading

    def facts(self) -> dict[str, str]:
        """What does not change, from all sources."""
        facts: dict[str, str] = {}
        for source in self.sources:
            facts |= source.facts()
        return facts

    def summary(self) -> dict[str, object]:
        """Median, least and most of every quantity; `not readable` where nothing told it."""
        seen = {name: _seen(self.readings, name) for name in QUANTITIES}
        reasons = sorted({reason for reading in self.readings for reason in reading.throttled})
        counted = sum(bool(reading.throttled) for reading in self.readings)
        return {
            **self.facts(),
            **{name: _range(values) for name, values in seen.items()},
            "load_average_1min": round(os.getloadavg()[0], 2),
            "throttled_rounds": counted,
            "throttled_because": reasons,
        }


def find_sources(root: Path = Path("/")) -> list[Source]:
    """The sources of this machine."""
    from engines.profile.jetson import JetsonSource, JtopSource
    from engines.profile.nvml import NvmlSource

    found: list[Source] = [LinuxSource(root)]
    if JetsonSource.present(root):
        found.append(JetsonSource(root))
    for kind in (JtopSource, NvmlSource):
        source = kind.open()
        if source is not None:
            found.append(source)
    return found


class LinuxSource:
    """Clock, governor, temperatures and throttle counters of the processor, from `/sys`."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._cpu = root / "sys/devices/system/cpu"
        self._thermal = root / "sys/class/thermal"
        self._counts: dict[str, int] = {}

    def facts(self) -> dict[str, str]:
        """The governor; who may change clocks decides how far a number can be repeated."""
        governor = read_text(self._cpu / "cpu0/cpufreq/scaling_governor")
        return {"cpu_governor": governor or NOT_READABLE}

    def values(self) -> dict[str, float]:
        """Mean clock of the cores, and the hottest zone."""
        clocks = read_numbers(self._cpu.glob("cpu[0-9]*/cpufreq/scaling_cur_freq"))
        zones = read_numbers(self._thermal.glob("thermal_zone*/temp"))
        values: dict[str, float] = {}
        if clocks:
            values["cpu_mhz"] = sum(clocks) / len(clocks) / 1e3
        if zones:
            values["hottest_c"] = max(zones) / 1e3
        return values

    def throttled(self) -> list[str]:
        """Cores whose thermal throttle counter has moved."""
        paths = self._cpu.glob("cpu[0-9]*/thermal_throttle/core_throttle_count")
        moved = moved_counters(self._counts, paths)
        return [f"processor too hot ({len(moved)} core(s))"] if moved else []


def read_text(path: Path) -> str | None:
    """A small file's text, None when it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip("\0\n ")
    except OSError:
        return None


def read_numbers(paths: Iterable[Path]) -> list[float]:
    """The numbers in some one-number files; those that cannot be read are left out."""
    numbers = []
    for path in paths:
        text = read_text(path)
        try:
            numbers.append(float(text or ""))
        except ValueError:
            continue
    return numbers


def moved_counters(before: dict[str, int], paths: Iterable[Path]) -> list[Path]:
    """Counter files whose number grew since `before`, which is brought up to date."""
    moved = []
    for path in sorted(paths):
        found = read_numbers([path])
        if not found:
            continue
        count = int(found[0])
        if count > before.get(str(path), count):
            moved.append(path)
        before[str(path)] = count
    return moved


def _seen(readings: Sequence[Reading], name: str) -> list[float]:
    return [reading.values[name] for reading in readings if name in reading.values]


def _range(values: Sequence[float]) -> dict[str, float] | str:
    if not values:
        return NOT_READABLE
    middle = sorted(values)[len(values) // 2]
    return {
        "median": round(middle, 2),
        "least": round(min(values), 2),
        "most": round(max(values), 2),
    }
