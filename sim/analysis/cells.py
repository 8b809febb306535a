"""The table of a study: `metrics.json`'s cells, with paired statistics and MACs beside them."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from sim.analysis.budget import token_budgets
from sim.analysis.pairs import as_family, compare
from sim.analysis.study import DENSE_CELL, outcomes_on
from sim.metrics import summarise

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from policy.openvla.config import OpenVLAConfig
    from sim.analysis.budget import TokenBudget
    from sim.analysis.pairs import Comparison
    from sim.analysis.study import Study
    from sim.rollout.types import Cell, EpisodeRecord

_TIMES = (
    *("query_latency_ms", "phase_latency_ms", "dense_query_latency_ms"),
    *("speedup_p50", "speedup_ceiling", "steps_per_s"),
)


def cell_rows(study: Study, config: OpenVLAConfig | None) -> list[dict[str, Any]]:
    """One row per cell: what `metrics.json` says, and `comparison`, `macs`, `dense_macs`.

    Success is over all folders of the study. Times are those of the folder that holds most of a
    cell's episodes, against the dense episodes beside them there.

    Args:
        study: the episodes.
        config: the policy's architecture; None when it cannot be had, and MACs are unknown then.
    """
    suite, policy = study.setup.suite, study.setup.policy
    rows = summarise(study, study, suite=suite, policy=policy)["runs"]
    compared = {one.treatment: one for one in to_dense(study)}
    dense_macs = mean_macs(study.of(DENSE_CELL), config)
    for row, cell in zip(rows, study.cells, strict=True):
        if len(study.folders) > 1:
            row |= _times_at_home(study, cell)
        found = compared.get(str(cell))
        row["comparison"] = None if found is None else comparison_entry(found)
        row["macs"], row["dense_macs"] = mean_macs(study.of(cell), config), dense_macs
    return rows


def comparison_entry(one: Comparison) -> dict[str, Any]:
    """A comparison as it stands in `metrics.json`."""
    return {**one._asdict(), "paired": one.paired._asdict()}


def to_dense(study: Study) -> list[Comparison]:
    """Every computed pruned cell against dense on the same seeds, as one family of tests."""
    dense = study.judged(DENSE_CELL)
    return as_family(
        [
            compare(str(cell), judged, str(DENSE_CELL), dense)
            for cell in study.cells
            if cell.pruned and (judged := study.judged(cell)).keys() & dense.keys()
        ]
    )


def method_budgets(study: Study) -> dict[str, list[TokenBudget]]:
    """Per method with at least two budgets: where it has lost 1, 5 and 10 points."""
    methods: dict[str, list[Cell]] = {}
    for cell in study.cells:
        if cell.pruned:
            methods.setdefault(cell.method, []).append(cell)
    found = {name: _budgets(study, cells) for name, cells in methods.items() if len(cells) > 1}
    return {name: budgets for name, budgets in found.items() if budgets}


def mean_macs(records: Sequence[EpisodeRecord], config: OpenVLAConfig | None) -> float | None:
    """Mean MACs of a query over judged episodes, warm-up queries included; None when not told."""
    judged = [record for record in records if record.outcome != "error"]
    if config is None or not judged or not all(any(r.layer_sequence_tokens) for r in judged):
        return None
    lengths: Counter[tuple[int, int, float]] = Counter()
    for record in judged:
        lengths.update(
            (record.sequence_tokens, kept, mean)
            for kept, mean in zip(
                record.kept_sequence_tokens, record.layer_sequence_tokens, strict=True
            )
        )
    from policy.openvla.macs import measured_macs

    total = sum(
        count * measured_macs(config, sequence=full, kept_sequence=kept, layer_mean=mean)
        for (full, kept, mean), count in lengths.items()
    )
    return total / lengths.total()


def front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of the (cost, gain) points that no other beats in both, the cheapest first."""
    best, found = -np.inf, []
    for index in sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1])):
        if points[index][1] > best:
            best = points[index][1]
            found.append(index)
    return found


def _times_at_home(study: Study, cell: Cell) -> dict[str, Any]:
    """The times of a cell from the one folder that measured it beside its own dense episodes."""
    home = type(study)(study.setup)
    home.add(study.home(cell))
    rows = summarise(home, home, suite=study.setup.suite, policy=study.setup.policy)["runs"]
    row = rows[home.cells.index(cell)]
    return {name: row[name] for name in _TIMES}


def _budgets(study: Study, cells: Sequence[Cell]) -> list[TokenBudget]:
    judged = {cell: study.judged(cell) for cell in cells}
    dense = study.judged(DENSE_CELL)
    seeds = sorted(set(dense).intersection(*judged.values()))
    sizes = {cell: _kept_tokens(judged[cell].values()) for cell in cells}
    full = max((record.visual_tokens for record in dense.values()), default=0)
    pruned = [cell for cell in cells if 0 < sizes[cell] < full]
    if not seeds or len(pruned) < 2:
        return []
    return token_budgets(
        np.array(outcomes_on(dense, seeds)),
        np.array([outcomes_on(judged[cell], seeds) for cell in pruned]).T,
        [sizes[cell] for cell in pruned],
        full,
    )


def _kept_tokens(records: Iterable[EpisodeRecord]) -> float:
    """Visual tokens kept by the median query that pruned."""
    kept = [k for record in records for k in record.kept if k < record.visual_tokens]
    return float(np.median(kept)) if kept else 0.0
