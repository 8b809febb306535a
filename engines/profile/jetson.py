"""A Jetson's power mode, rails, clocks and throttling, from `/sys` and from jtop's service.

`/sys` needs no daemon: power rails are INA3221 channels (millivolt times milliampere), over-current
events are counters of the `soctherm_oc` device, thermal alerts are cooling devices that have left
state 0. jtop adds the memory clock, which only root may read otherwise.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from engines.profile.conditions import NOT_READABLE, moved_counters, read_numbers, read_text

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

INPUT_RAIL = "VDD_IN"
_OVER_CURRENT = {"oc1": "under-voltage", "oc2": "average over-current", "oc3": "over-current"}


class JetsonSource:
    """What a Jetson says in `/sys`, without root and without a daemon."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._hwmon = root / "sys/class/hwmon"
        self._counts: dict[str, int] = {}

    @staticmethod
    def present(root: Path) -> bool:
        """Whether this is a Jetson."""
        return (root / "etc/nv_tegra_release").is_file() or "Jetson" in (_model(root) or "")

    def facts(self) -> dict[str, str]:
        """Model, Jetson Linux release and power mode."""
        release = read_text(self._root / "etc/nv_tegra_release")
        return {
            "jetson_model": _model(self._root) or NOT_READABLE,
            "jetson_linux": release.splitlines()[0].lstrip("# ") if release else NOT_READABLE,
            "power_mode": self._power_mode() or NOT_READABLE,
        }

    def values(self) -> dict[str, float]:
        """GPU clock, and power: the input rail where there is one, else the sum of the rails."""
        values: dict[str, float] = {}
        devfreq = self._root / "sys/class/devfreq"
        gpu = [p for p in devfreq.glob("*") if re.search(r"gpu|gpc|ga10b|gv11b", p.name)]
        clocks = read_numbers(path / "cur_freq" for path in gpu)
        if clocks:
            values["gpu_mhz"] = max(clocks) / 1e6
        rails = dict(self._rails())
        if rails:
            values["power_w"] = rails.get(INPUT_RAIL, sum(rails.values()))
        return values

    def throttled(self) -> list[str]:
        """Over-current events since the last look, and thermal alerts that are on."""
        events = self._named("soctherm_oc")
        paths = (path for device in events for path in device.glob("oc*_event_cnt"))
        moved = [path.name.partition("_")[0] for path in moved_counters(self._counts, paths)]
        reasons = [f"board: {_OVER_CURRENT.get(event, event)}" for event in moved]
        for device in (self._root / "sys/class/thermal").glob("cooling_device*"):
            kind = read_text(device / "type") or ""
            if "throttle" in kind and any(read_numbers([device / "cur_state"])):
                reasons.append(f"thermal alert: {kind}")
        return reasons

    def _rails(self) -> Iterator[tuple[str, float]]:
        for device in self._named("ina3221"):
            for volt in device.glob("in[0-9]_input"):
                channel = volt.name[2]
                name = read_text(device / f"in{channel}_label")
                pair = read_numbers([volt, device / f"curr{channel}_input"])
                if name and len(pair) == 2:
                    yield name, pair[0] * pair[1] / 1e6

    def _named(self, name: str) -> list[Path]:
        return [p for p in self._hwmon.glob("hwmon*") if read_text(p / "name") == name]

    def _power_mode(self) -> str | None:
        status = read_text(self._root / "var/lib/nvpmodel/status")
        found = re.search(r"pmode:0*(\d+)", status or "")
        if not found:
            return None
        number = found[1]
        conf = read_text(self._root / "etc/nvpmodel.conf") or ""
        named = re.search(rf"POWER_MODEL\s+ID={number}\s+NAME=(\S+)", conf)
        return f"{number} ({named[1]})" if named else number


class JtopSource:
    """The memory clock and the power mode, from jtop's service."""

    def __init__(self, client: Any) -> None:
        self._client = client

    @classmethod
    def open(cls) -> JtopSource | None:
        """Connect to the service; None without the package or the service."""
        try:
            from jtop import jtop
        except ImportError:
            return None
        try:
            client = jtop()
            client.start()
        except Exception:  # the package raises its own kind for every version of the service
            return None
        return cls(client)

    def facts(self) -> dict[str, str]:
        """The power mode's name."""
        return {"power_mode": str(self._client.nvpmodel)}

    def values(self) -> dict[str, float]:
        """The memory clock; jtop gives kilohertz."""
        try:
            clock = self._client.memory["EMC"]["cur"]
        except KeyError:
            return {}
        return {"memory_mhz": clock / 1e3}

    def throttled(self) -> list[str]:
        """Nothing beyond what `/sys` tells."""
        return []


def _model(root: Path) -> str | None:
    return read_text(root / "sys/firmware/devicetree/base/model")
