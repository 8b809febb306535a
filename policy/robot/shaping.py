"""From what a policy says to a command that keeps every limit, or a refusal of the whole chunk."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from policy.contract import Box
from policy.robot.braking import in_time, widened
from policy.robot.limits import Motion, advance, bounds_of, broken, leaves, slew
from policy.robot.rows import RefusedError, Rows

if TYPE_CHECKING:
    from jaxtyping import Float64

    from policy.contract import Contract
    from policy.robot.limits import Bounds


@dataclass(frozen=True)
class Shaped:
    """One row as it will be commanded, and what had to be changed."""

    motion: Motion
    clamped: tuple[str, ...] = ()


class Shaper:
    """Keeps commands within a contract's limits.

    Args:
        contract: the robot.
    """

    def __init__(self, contract: Contract) -> None:
        self.contract, self.period_s = contract, contract.period_s
        self.bounds: Bounds = bounds_of(contract)
        self._margin = contract.limits.margin
        box = contract.limits.workspace
        twist = contract.command.kind == "twist"
        self._box = box if twist and isinstance(box, Box) else None
        self._inner = None if self._box is None else self._within(self._box)
        ends = self.bounds if self._inner is None else _boxed(self.bounds, self._inner)
        self._ends = widened(ends)

    def check_chunk(self, rows: Rows) -> tuple[Rows, tuple[str, ...]]:
        """Clamp what is a little beyond a limit, refuse what is far beyond it.

        Raises:
            RefusedError: when a value is beyond a limit by more than the margin.
        """
        if rows.kind == "speed":
            low, high = -self.bounds.velocity, self.bounds.velocity
        else:
            low, high = self.bounds.lower, self.bounds.upper
        room = self._margin * (high - low) / 2
        clamped = np.minimum(np.maximum(rows.values, low), high)
        beyond = np.abs(rows.values - clamped) > room
        if beyond.any():
            row, j = np.argwhere(beyond)[0]
            raise RefusedError(
                f"{self.bounds.names[j]} is asked for {rows.values[row, j]:.4g} in row {row}, "
                f"limits {low[j]:g} to {high[j]:g}: chunk refused"
            )
        self._check_steps(rows)
        changed = np.flatnonzero((clamped != rows.values).any(0))
        notes = tuple(f"{self.bounds.names[j]} clamped to its limit" for j in changed)
        return replace(rows, values=clamped), notes

    def _check_steps(self, rows: Rows) -> None:
        """Refuse joint positions that no joint could follow, row after row."""
        if rows.kind != "position" or len(rows.values) < 2:
            return
        speed = np.abs(np.diff(rows.values, axis=0)) / self.period_s
        most = self.bounds.velocity * (1.0 + self._margin)
        if (speed > most).any():
            row, j = np.argwhere(speed > most)[0]
            raise RefusedError(
                f"{self.bounds.names[j]} would move at {speed[row, j]:.4g} after row {row}, limit "
                f"{self.bounds.velocity[j]:g}: chunk refused"
            )

    def step(
        self,
        motion: Motion,
        wanted: Float64[np.ndarray, " j"],
        hand: Float64[np.ndarray, 3] | None,
    ) -> Shaped:
        """The next motion towards `wanted` (a speed of the hand, or joint positions).

        Args:
            motion: what was commanded last.
            wanted: the row.
            hand: measured position of the hand; needed where the workspace is a box.

        Raises:
            RefusedError: when no motion within the limits can be given.
        """
        notes: tuple[str, ...] = ()
        place, target = motion.position, wanted
        if place is not None:
            target = (wanted - place) / self.period_s
        elif self._inner is not None:
            target, notes = self._inside(self._inner, target, hand)
            place = np.concatenate([hand, np.zeros(3)])
        speed = slew(self.bounds, motion, target, self.period_s)
        if place is not None:
            speed = in_time(self._ends, motion, speed, place, self.period_s)
        then = advance(motion, speed, self.period_s)
        if self._box is not None:
            self._still_inside(self._box, then, hand)
        problems = broken(self.bounds, motion, then, self.period_s)
        if problems:
            raise RefusedError("; ".join(problems))
        return Shaped(then, notes)

    def _inside(
        self, box: Box, target: np.ndarray, hand: np.ndarray | None
    ) -> tuple[np.ndarray, tuple[str, ...]]:
        """The target without the part that leads out of the workspace."""
        if hand is None:
            raise RefusedError(
                f"the hand's position is not known ({self.contract.feedback.pose} is silent), "
                "so the workspace cannot be kept"
            )
        out = leaves(box, hand, target[:3], self.period_s)
        if not out.any():
            return target, ()
        target = target.copy()
        there = hand + target[:3] * self.period_s - out
        inward = (there - hand) / self.period_s
        target[:3] = np.where(out != 0.0, inward * (np.sign(inward) == np.sign(out)), target[:3])
        return target, ("held at the edge of the workspace",)

    def _within(self, box: Box) -> Box:
        """The workspace less a part of one period's reach: the guard measures a moment later."""
        reach = self._margin * self.period_s * float(self.bounds.velocity[0])
        room = [min(reach, (b - a) / 4) for a, b in zip(box.lower, box.upper, strict=True)]
        lower = tuple(a + r for a, r in zip(box.lower, room, strict=True))
        upper = tuple(b - r for b, r in zip(box.upper, room, strict=True))
        return Box(lower=lower, upper=upper)  # type: ignore[arg-type]

    def _still_inside(self, box: Box, then: Motion, hand: np.ndarray | None) -> None:
        if hand is None:
            return
        out = leaves(box, hand, then.velocity[:3], self.period_s)
        if out.any():
            raise RefusedError(
                f"the hand at {np.round(hand, 3).tolist()} cannot halt within the workspace "
                f"{box.lower} to {box.upper}"
            )


def _boxed(bounds: Bounds, box: Box) -> Bounds:
    """The limits of a twist, with the box as the ends of its linear axes."""
    free = np.full(3, np.inf)
    lower, upper = np.concatenate([box.lower, -free]), np.concatenate([box.upper, free])
    return replace(bounds, lower=lower, upper=upper)
