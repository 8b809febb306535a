"""Numbers of a replay: how far cells are from the recording, from dense, and from one another.

Open-loop error is no success rate: what is executed changes what is seen next, and here nothing
does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaxtyping import Float32

    from policy.replay.match import Fit
    from policy.replay.trace import Trace


def recorded_rows(fit: Fit, rows: Float32[np.ndarray, "rows r"], dof: int) -> np.ndarray:
    """Recorded rows in the policy's columns; NaN where the recording has no such value."""
    out = np.full((len(rows), dof), np.nan, np.float32)
    for place, source in fit.compared:
        out[:, place] = rows[:, source]
    return out


def action_error(
    said: Float32[np.ndarray, "rows dof"],
    reference: Float32[np.ndarray, "rows dof"],
    names: Sequence[str],
) -> dict[str, Any] | None:
    """Error per value, in its unit, over the rows that both have; None when there is none.

    `relative` is the mean over values of their mean absolute error, each as a part of the range
    that the reference covers; values that do not move there are left out.
    """
    if not said.size or said.shape != reference.shape:
        return None
    both = np.isfinite(said) & np.isfinite(reference)
    if not both.any():
        return None
    gap = np.where(both, np.abs(said.astype(np.float64) - reference), np.nan)
    values = {
        name: {
            "rows": int(both[:, j].sum()),
            "mae": float(np.nanmean(gap[:, j])),
            "rmse": float(np.sqrt(np.nanmean(gap[:, j] ** 2))),
            "max": float(np.nanmax(gap[:, j])),
        }
        for j, name in enumerate(names)
        if both[:, j].any()
    }
    spans = {j: _span(reference[both[:, j], j]) for j in range(len(names)) if both[:, j].any()}
    parts = [values[names[j]]["mae"] / span for j, span in spans.items() if span > 0]
    return {"relative": float(np.mean(parts)) if parts else None, "values": values}


def chunk_error(trace: Trace, dense: Trace, names: Sequence[str]) -> dict[str, Any] | None:
    """Error of whole chunks against dense's on the same looks, and how many are identical."""
    pairs = list(zip(trace.answers, dense.answers, strict=True))
    if not pairs:
        return None
    said = np.concatenate([mine.chunk.actions for mine, _ in pairs])
    wanted = np.concatenate([theirs.chunk.actions for _, theirs in pairs])
    error = action_error(said, wanted, names) or {}
    same = sum(np.array_equal(m.chunk.actions, t.chunk.actions) for m, t in pairs)
    return {**error, "identical_chunks": same, "chunks": len(pairs)}


def overlap(one: Trace, other: Trace) -> dict[str, Any] | None:
    """Kept sets of two cells on the same looks: shared tokens as a part of all (Jaccard)."""
    shares: list[float] = []
    for mine, theirs in zip(one.answers, other.answers, strict=True):
        for a, b in zip(mine.chunk.kept, theirs.chunk.kept, strict=True):
            union = len(np.union1d(a, b))
            shares.append(len(np.intersect1d(a, b)) / union if union else 1.0)
    if not shares:
        return None
    return {
        "cells": [one.name, other.name],
        "jaccard": float(np.mean(shares)),
        "least": float(np.min(shares)),
        "identical_sets": sum(share == 1.0 for share in shares),
        "sets": len(shares),
    }


def _span(values: np.ndarray) -> float:
    return float(values.max() - values.min()) if len(values) else 0.0
