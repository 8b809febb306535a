"""Braking in time: of the speeds on the way to the one that is wanted, one that can still stop.

A motion is *safe* when braking from it, within the limits of acceleration and jerk, comes to rest
inside the limits of position. Braking from a safe motion is safe again, so where every step is
chosen safe there is always a next one, and no command has to be refused for what came before it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from policy.robot.limits import fading

if TYPE_CHECKING:
    from jaxtyping import Bool, Float64

    from policy.robot.limits import Bounds, Motion

_PARTS = np.linspace(0.0, 1.0, 17)[:, None]  # of the way from braking to what is wanted
_MOST_PERIODS = 1000  # a motion that has not come to rest by then is not called safe
_STILL = 1e-12  # m/s, rad/s, and their change: what rounding leaves of a rest
_SLACK = 5e-7  # of a range, for rounding; half of what the limits themselves allow


def in_time(
    bounds: Bounds,
    motion: Motion,
    wanted: Float64[np.ndarray, " j"],
    place: Float64[np.ndarray, " j"],
    period_s: float,
) -> Float64[np.ndarray, " j"]:
    """`wanted`, or as much of it as leaves room to brake before `bounds.lower` and `upper`.

    Args:
        bounds: the limits, `widened`; where a position has none, they are infinite.
        motion: what was commanded last.
        wanted: the next speed, within the limits of speed, acceleration and jerk.
        place: where the joints, or the hand, are now.
        period_s: time between two commands.
    """
    speed, gain = motion.velocity, (wanted - motion.velocity) / period_s
    low, high = np.minimum(bounds.lower, place), np.maximum(bounds.upper, place)
    there = place + wanted * period_s
    reach = (
        0.0 if _halts(bounds, wanted, gain, period_s) else _reach(bounds, wanted, gain, period_s)
    )
    if ((there - reach >= low) & (there + reach <= high)).all():
        return wanted
    braked, _ = brake(bounds, speed, motion.acceleration, period_s)
    chosen = braked + _PARTS * (wanted - braked)
    chosen[-1] = wanted  # bit for bit where nothing is in the way
    down, up = travel(bounds, chosen, (chosen - speed) / period_s, period_s)
    there = place + chosen * period_s
    safe: Bool[np.ndarray, "k j"] = (there + down >= low) & (there + up <= high)
    safe[0] = True  # nothing brakes harder
    best = len(_PARTS) - 1 - np.argmax(safe[::-1], axis=0)
    return chosen[best, np.arange(len(wanted))]


def widened(bounds: Bounds) -> Bounds:
    """The same limits with room for rounding in those of position."""
    room = _SLACK * (bounds.upper - bounds.lower)
    return replace(bounds, lower=bounds.lower - room, upper=bounds.upper + room)


def brake(
    bounds: Bounds,
    speed: Float64[np.ndarray, "*k j"],
    gain: Float64[np.ndarray, "*k j"],
    period_s: float,
) -> tuple[Float64[np.ndarray, "*k j"], Float64[np.ndarray, "*k j"]]:
    """Speed and acceleration one period later, on the way to rest and not beyond it."""
    step = bounds.jerk * period_s
    rest = -speed / period_s
    down = fading(np.maximum(speed, 0.0), step, period_s)
    up = fading(np.maximum(-speed, 0.0), step, period_s)
    low = np.maximum(gain - step, -bounds.acceleration)
    high = np.minimum(gain + step, bounds.acceleration)
    after = np.minimum(np.maximum(np.minimum(np.maximum(rest, -down), up), low), high)
    return np.where(after == rest, 0.0, speed + after * period_s), after


def travel(
    bounds: Bounds,
    speed: Float64[np.ndarray, "*k j"],
    gain: Float64[np.ndarray, "*k j"],
    period_s: float,
) -> tuple[Float64[np.ndarray, "*k j"], Float64[np.ndarray, "*k j"]]:
    """How far down and up a motion still goes when it brakes from now on."""
    place = np.zeros_like(speed)
    down, up = place, place
    for _ in range(_MOST_PERIODS):
        if (np.abs(speed) <= _STILL).all() and (np.abs(gain) <= _STILL).all():
            return down, up
        speed, gain = brake(bounds, speed, gain, period_s)
        place = place + speed * period_s
        down, up = np.minimum(down, place), np.maximum(up, place)
    return np.full_like(place, -np.inf), np.full_like(place, np.inf)


def _halts(
    bounds: Bounds,
    speed: Float64[np.ndarray, " j"],
    gain: Float64[np.ndarray, " j"],
    period_s: float,
) -> bool:
    """Whether one period is enough to come to rest, as it is where limits are wide."""
    step, rest = bounds.jerk * period_s, np.abs(speed) / period_s
    hard = (rest <= bounds.acceleration) & (rest <= step)
    return bool((hard & (np.abs(speed / period_s + gain) <= step)).all())


def _reach(
    bounds: Bounds,
    speed: Float64[np.ndarray, " j"],
    gain: Float64[np.ndarray, " j"],
    period_s: float,
) -> Float64[np.ndarray, " j"]:
    """More than a braking motion can travel; cheap, and exact only in being enough."""
    gain = np.abs(gain)
    most = np.abs(speed) + gain * (gain / bounds.jerk + period_s)
    time_s = (gain + bounds.acceleration) / bounds.jerk + most / bounds.acceleration
    return 2.0 * most * (time_s + 4.0 * period_s)
