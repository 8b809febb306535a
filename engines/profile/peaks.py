"""The table of peak rates (`peaks.json`), with where every number comes from."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from engines.profile.roofline import Peak
from pruning.spelling import did_you_mean

_TABLE = Path(__file__).with_name("peaks.json")


class UnknownPeakError(ValueError):
    """A device or a precision that the table does not have."""


@lru_cache(maxsize=1)
def table() -> dict[str, Any]:
    """The whole table."""
    return json.loads(_TABLE.read_text(encoding="utf-8"))


def device_names() -> list[str]:
    """Devices of the table."""
    return list(table()["devices"])


def peak_of(device: str, precision: str) -> Peak:
    """Peak rates of a device at a precision.

    Raises:
        UnknownPeakError: when the table has no such row, with the ones that it has.
    """
    devices = table()["devices"]
    if device not in devices:
        hint = did_you_mean(device, devices)
        raise UnknownPeakError(
            f"no peak rates for {device!r}: the table has {', '.join(devices)}{hint}"
        )
    row = devices[device]
    rates = row["tera_op_per_s"]
    if precision not in rates:
        raise UnknownPeakError(f"no {precision} rate for {device}: it has {', '.join(rates)}")
    return Peak(row["name"], rates[precision] * 1e12, row["giga_byte_per_s"] * 1e9)


def sources_of(device: str) -> list[dict[str, str]]:
    """Where the numbers of a device come from."""
    return table()["devices"][device]["sources"]


def memory_bytes(device: str) -> float:
    """Memory of a device, all of it; on a Jetson the system takes its share."""
    return table()["devices"][device]["memory_giga_byte"] * 1e9


def reported(device: str, shape: str | None) -> list[dict[str, Any]]:
    """Measurements that others have published for this device and architecture."""
    rows = table()["reported"]
    return [row for row in rows if row["device"] == device and row["shape"] == shape]
