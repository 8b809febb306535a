"""What action rows mean on one robot: policy units in, speeds or joint positions out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from jaxtyping import Float, Float64

    from policy.contract import Contract


class RefusedError(ValueError):
    """A chunk that asks for something beyond a hard limit, or for nothing finite."""


@dataclass(frozen=True)
class Rows:
    """A chunk in physical units.

    Attributes:
        kind: `speed` (m/s and rad/s of the hand), `position` (joints, rad or m), or `delta`
            (joints, per step, not yet anchored).
        values: one row per period.
        gripper: position of the gripper's joint per row; empty columns when there is none.
    """

    kind: Literal["speed", "position", "delta"]
    values: Float64[np.ndarray, "k j"]
    gripper: Float64[np.ndarray, "k g"]


def interpret(actions: Float[np.ndarray, "k dof"], contract: Contract) -> Rows:
    """A policy's rows as this robot understands them.

    Raises:
        RefusedError: when any value is not finite, or the rows have another width than promised.
    """
    action = contract.action
    values = np.asarray(actions, np.float64)
    if values.ndim != 2 or values.shape[1] != len(action.names):
        raise RefusedError(
            f"the policy's chunk has shape {values.shape}, rows of {len(action.names)} expected"
        )
    if not np.isfinite(values).all():
        row, column = np.argwhere(~np.isfinite(values))[0]
        raise RefusedError(
            f"the policy's action is not finite: {action.names[column]!r} in row {row}: "
            "chunk refused"
        )
    driven = values[:, list(action.columns)] * np.asarray(action.scale)
    if action.kind == "delta_eef":
        driven = driven * contract.rate_hz
    kinds = {"delta_eef": "speed", "twist": "speed", "joint_delta": "delta"}
    return Rows(
        kinds.get(action.kind, "position"),  # type: ignore[arg-type]
        driven,
        _gripper(values, contract),
    )


def anchor(rows: Rows, start: Float64[np.ndarray, " j"]) -> Rows:
    """Deltas as positions, counted from where the joints are when the first row begins."""
    if rows.kind != "delta":
        return rows
    return Rows("position", start + np.cumsum(rows.values, axis=0), rows.gripper)


def _gripper(values: Float64[np.ndarray, "k dof"], contract: Contract) -> np.ndarray:
    gripper, column = contract.gripper, contract.action.gripper_column
    if gripper is None or column is None:
        return np.zeros((len(values), 0))
    said = values[:, column]
    opened = (said - gripper.closed_at) / (gripper.open_at - gripper.closed_at)
    if gripper.binary:
        opened = (opened > 0.5).astype(np.float64)
    low, high = gripper.closed_position, gripper.open_position
    return (low + np.minimum(np.maximum(opened, 0.0), 1.0) * (high - low))[:, None]
