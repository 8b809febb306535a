"""Is a stamp believable? Too old, too far ahead, and never set are three different faults."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from policy.contract import Age


def age_fault(
    stamp_s: float, now_s: float, age: Age, *, allow_unstamped: bool = False
) -> str | None:
    """What is wrong with a stamp at `now_s`, or None.

    Both sides are checked: a stamp in the future would otherwise never look old.
    """
    if stamp_s == 0.0:
        return None if allow_unstamped else "has no stamp: set header.stamp at the source"
    old_ms = (now_s - stamp_s) * 1e3
    if old_ms > age.max_ms:
        return f"is {old_ms:.0f} ms old, at most {age.max_ms:g} ms are allowed"
    if -old_ms > age.ahead_ms:
        return (
            f"is {-old_ms:.0f} ms in the future, at most {age.ahead_ms:g} ms are allowed: "
            "synchronise the clocks (chrony, PTP), or check use_sim_time"
        )
    return None
