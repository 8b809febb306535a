"""The chunk broker: which row is due now, and when to look again.

A plan is an immutable value. Every reset, new instruction or broken clock raises its epoch; an
answer that belongs to an earlier epoch is dropped, however late it comes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from jaxtyping import Float64

    from policy.contract import Execution

_ROUNDING_S = 1e-6  # of stamps on the wire


@dataclass(frozen=True)
class Plan:
    """What is being executed.

    Attributes:
        epoch: what an answer must belong to.
        rows: rows of the present chunk, gripper last; None before the first.
        cursor: the next row.
        most: rows that may run before the plan is spent.
        stamp_s: stamp of the observation that the rows answer.
        moved_s: when the last row was handed out.
        seam: largest change, in units of the row, where the last chunk took over.
    """

    epoch: int = 0
    rows: Float64[np.ndarray, "k d"] | None = None
    cursor: int = 0
    most: int = 0
    stamp_s: float = 0.0
    moved_s: float = -math.inf
    seam: float = 0.0

    @property
    def left(self) -> int:
        """Rows that are still to come."""
        return 0 if self.rows is None else max(0, min(self.most, len(self.rows)) - self.cursor)


@dataclass(frozen=True)
class Broker:
    """The rules of execution.

    Args:
        execution: mode, blending and settling times.
        execute: rows before the next look.
        horizon: rows of a chunk.
        period_s: time of one row.
    """

    execution: Execution
    execute: int
    horizon: int
    period_s: float

    def drop(self, plan: Plan) -> Plan:
        """Forget the chunk and raise the epoch."""
        return Plan(epoch=plan.epoch + 1, moved_s=plan.moved_s)

    def wants(self, plan: Plan, stamp_s: float) -> bool:
        """Whether an observation stamped `stamp_s` should be asked about now."""
        if stamp_s <= plan.stamp_s and plan.rows is not None:
            return False
        if self.execution.mode == "overlap":
            return plan.rows is None or plan.cursor >= min(self.execute, self.horizon)
        settled_s = plan.moved_s + self.execution.settle_ms * 1e-3
        return plan.left == 0 and stamp_s >= settled_s - _ROUNDING_S

    def adopt(
        self, plan: Plan, rows: Float64[np.ndarray, "k d"], stamp_s: float, epoch: int, now_s: float
    ) -> tuple[Plan, str | None]:
        """Take an answer; the plan, and why it was dropped where it was."""
        if epoch != plan.epoch:
            return plan, f"answer of epoch {epoch} dropped, the present one is {plan.epoch}"
        if self.execution.mode == "sequential":
            return replace(
                plan, rows=rows, cursor=0, most=self.execute, stamp_s=stamp_s, seam=0.0
            ), None
        first = max(0, math.floor((now_s - stamp_s) / self.period_s + 1e-9))
        if first >= len(rows):
            return plan, f"answer dropped, all {len(rows)} rows were due before it came"
        joined, seam = self._join(plan, rows, first)
        return replace(
            plan, rows=joined, cursor=first, most=len(rows), stamp_s=stamp_s, seam=seam
        ), None

    def take(self, plan: Plan, now_s: float) -> tuple[Plan, Float64[np.ndarray, " d"] | None]:
        """The row that is due, or None when the plan is spent."""
        if plan.rows is None or plan.left == 0:
            return plan, None
        row = plan.rows[plan.cursor]
        return replace(plan, cursor=plan.cursor + 1, moved_s=now_s), row

    def ahead(self, plan: Plan, count: int) -> Float64[np.ndarray, "k d"]:
        """Up to `count` rows after the one handed out last, without taking them."""
        if plan.rows is None:
            return np.zeros((0, 0))
        return plan.rows[plan.cursor : plan.cursor + min(count, plan.left)]

    def _join(self, plan: Plan, new: np.ndarray, first: int) -> tuple[np.ndarray, float]:
        """From row `first` on: frozen rows of the old chunk, a cross-fade, then the new chunk.

        The last column, the gripper, is never blended: half open is nobody's intention.
        """
        old = self.ahead(plan, self.horizon)
        shared = min(len(old), len(new) - first)
        if not shared:
            return new, 0.0
        old, due = old[:shared], new[first : first + shared]
        seam = float(np.abs(due[0, :-1] - old[0, :-1]).max(initial=0.0))
        freeze, blend = self.execution.freeze_rows, self.execution.blend_rows
        weight = np.clip((np.arange(shared) - freeze + 1) / (blend + 1), 0.0, 1.0)[:, None]
        out = new.copy()
        # Written so that weight 1 gives the new row bit for bit, and weight 0 the old one.
        mixed = np.where(weight < 1.0, old + weight * (due - old), due)
        out[first : first + shared, :-1] = mixed[:, :-1]
        out[first : first + min(freeze, shared), -1] = old[:freeze, -1]
        return out, seam
