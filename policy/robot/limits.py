"""Limits: what breaks one, and the fastest motion towards a target that breaks none.

A command stream is judged as it is executed: one command per period of the contract. With `v` the
speed that a command asks for, acceleration is its change per period and jerk the change of that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from policy.contract import Box

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaxtyping import Float64

    from policy.contract import Axis, Contract

_SLACK = 1e-6  # of a limit, for rounding


@dataclass(frozen=True)
class Bounds:
    """The limits of every commanded axis or joint, in the contract's order.

    Attributes:
        lower, upper: of positions; infinite for the axes of a twist, whose place is the workspace.
    """

    names: tuple[str, ...]
    velocity: Float64[np.ndarray, " j"]
    acceleration: Float64[np.ndarray, " j"]
    jerk: Float64[np.ndarray, " j"]
    lower: Float64[np.ndarray, " j"]
    upper: Float64[np.ndarray, " j"]


@dataclass(frozen=True)
class Motion:
    """What the last command asked for: speed and acceleration; at rest to begin with.

    Attributes:
        position: joint positions of the last command; None when they are not known.
    """

    velocity: Float64[np.ndarray, " j"]
    acceleration: Float64[np.ndarray, " j"]
    position: Float64[np.ndarray, " j"] | None = None


def at_rest(size: int, position: Float64[np.ndarray, " j"] | None = None) -> Motion:
    """No motion, at a position where one is known."""
    return Motion(np.zeros(size), np.zeros(size), position)


def bounds_of(contract: Contract) -> Bounds:
    """The contract's limits as arrays."""
    limits, command = contract.limits, contract.command
    if command.kind == "twist":
        parts = [limits.linear] * 3 + [limits.angular] * 3
        names = tuple(f"{kind} {axis}" for kind in ("linear", "angular") for axis in "xyz")
        ends = np.full(6, np.inf)
        return _bounds(names, parts, -ends, ends)
    joints = [limits.joints[name] for name in command.joints]
    lower, upper = (np.array([getattr(j, end) for j in joints]) for end in ("lower", "upper"))
    return _bounds(command.joints, joints, lower, upper)


def _bounds(
    names: tuple[str, ...], parts: Sequence[Axis | None], lower: np.ndarray, upper: np.ndarray
) -> Bounds:
    def each(kind: str) -> np.ndarray:
        return np.array([getattr(part, kind) for part in parts], np.float64)

    return Bounds(names, each("velocity"), each("acceleration"), each("jerk"), lower, upper)


def advance(motion: Motion, velocity: Float64[np.ndarray, " j"], period_s: float) -> Motion:
    """The motion after one more command."""
    position = None if motion.position is None else motion.position + velocity * period_s
    return Motion(velocity, (velocity - motion.velocity) / period_s, position)


def broken(bounds: Bounds, motion: Motion, then: Motion, period_s: float) -> list[str]:
    """Every limit that the step from `motion` to `then` breaks, as sentences."""
    jerk = (then.acceleration - motion.acceleration) / period_s
    out = []
    for kind, values, limit in (
        ("velocity", then.velocity, bounds.velocity),
        ("acceleration", then.acceleration, bounds.acceleration),
        ("jerk", jerk, bounds.jerk),
    ):
        beyond = np.abs(values) > limit * (1 + _SLACK)
        if beyond.any():
            for j in np.flatnonzero(beyond):
                out.append(f"{kind} of {bounds.names[j]} is {values[j]:.4g}, limit {limit[j]:g}")
    if then.position is not None:
        slack = _SLACK * (bounds.upper - bounds.lower)
        outside = (then.position < bounds.lower - slack) | (then.position > bounds.upper + slack)
        for j in np.flatnonzero(outside):
            out.append(
                f"position of {bounds.names[j]} is {then.position[j]:.4g}, limits "
                f"{bounds.lower[j]:g} to {bounds.upper[j]:g}"
            )
    return out


def slew(
    bounds: Bounds, motion: Motion, target: Float64[np.ndarray, " j"], period_s: float
) -> Float64[np.ndarray, " j"]:
    """The speed nearest to `target` that keeps velocity, acceleration and jerk, now and later.

    Acceleration is cut early enough to fade, at the jerk limit, before the velocity limit.
    """
    step = bounds.jerk * period_s
    # Where the target is reached it is reached exactly: a rest must be a rest, not 1e-19 m/s.
    reached = np.minimum(np.maximum(target, -bounds.velocity), bounds.velocity)
    wanted = (reached - motion.velocity) / period_s
    low = np.maximum(motion.acceleration - step, -bounds.acceleration)
    high = np.minimum(motion.acceleration + step, bounds.acceleration)
    up = fading(bounds.velocity - motion.velocity, step, period_s)
    down = fading(bounds.velocity + motion.velocity, step, period_s)
    # Fading may never ask for more than the jerk limit gives: `low` and `high` have the last word.
    faded = np.minimum(np.maximum(wanted, -down), up)
    acceleration = np.minimum(np.maximum(faded, low), high)
    return np.where(acceleration == wanted, reached, motion.velocity + acceleration * period_s)


def fading(
    gap: Float64[np.ndarray, "*k j"], step: Float64[np.ndarray, " j"], period_s: float
) -> Float64[np.ndarray, "*k j"]:
    """The largest acceleration that, falling by `step` per period, gains at most `gap` of speed."""
    ratio = np.maximum(gap, 0.0) / (step * period_s)
    return step * np.maximum(np.minimum(ratio, 1.0), (np.sqrt(8.0 * ratio) - 1.0) / 2.0)


def leaves(
    box: object, here: Float64[np.ndarray, 3], velocity: Float64[np.ndarray, 3], period_s: float
) -> Float64[np.ndarray, 3]:
    """How far, metres per axis, one period of motion leads out of a workspace; zero for inwards."""
    if not isinstance(box, Box):
        return np.zeros(3)
    there = here + velocity * period_s
    out = np.maximum(there - box.upper, 0.0) - np.maximum(box.lower - there, 0.0)
    return np.where(out * velocity > 0.0, out, 0.0) if out.any() else out
