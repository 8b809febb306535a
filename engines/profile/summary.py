"""From samples to the numbers of a report: one entry per cell, each beside the reference cell."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from engines.profile.statistics import Ratio, paired_ratio, spread

if TYPE_CHECKING:
    from collections.abc import Sequence

    from engines.profile.measure import Sample


class NothingMeasuredError(RuntimeError):
    """A cell of which only warm-up queries exist."""

    exit_code = 1


def summarise(samples: Sequence[Sample], reference: str) -> dict[str, dict[str, Any]]:
    """Latencies of every cell, and its speed-up over `reference` in the same rounds.

    Args:
        samples: what `measure` gave.
        reference: the cell that others are compared with.

    Raises:
        NothingMeasuredError: when a cell was warming up until the end, or does not exist.
    """
    cells: dict[str, list[Sample]] = {}
    for sample in sorted(samples, key=lambda sample: sample.round):
        cells.setdefault(sample.cell, []).append(sample)
    for name in (reference, *cells):
        if not any(not sample.warmup for sample in cells.get(name, [])):
            raise NothingMeasuredError(
                f"{name}: no query after the warm-up; measure more rounds with `--rounds`"
            )
    return {name: _cell(taken, cells[reference]) for name, taken in cells.items()}


def steady(samples: Sequence[Sample]) -> list[Sample]:
    """The samples that count."""
    return [sample for sample in samples if not sample.warmup]


def _cell(taken: Sequence[Sample], reference: Sequence[Sample]) -> dict[str, Any]:
    counted = steady(taken)
    phases = list(dict.fromkeys(name for sample in counted for name in sample.phase_ms))
    cpu = sum(s.cpu_ms for s in counted)
    return {
        "queries": len(counted),
        "throttled_queries": sum(sample.throttled for sample in counted),
        "preempted_queries": sum(sample.preempted > 0 for sample in counted),
        "query_ms": spread([sample.query_ms for sample in counted]),
        "cpu_ms": spread([sample.cpu_ms for sample in counted]),
        "cpu_share": cpu / sum(sample.query_ms for sample in counted),
        "phase_ms": {
            name: spread([sample.phase_ms.get(name, 0.0) for sample in counted]) for name in phases
        },
        "gap_ms": spread([sample.gap_ms for sample in counted]),
        "warmup": _warmup(taken),
        "speedup": _speedup(counted, steady(reference), "query_ms"),
        "cpu_speedup": _speedup(counted, steady(reference), "cpu_ms"),
    }


def _warmup(taken: Sequence[Sample]) -> dict[str, float | int | None]:
    """What comes before steady state: how long it lasts, and what the very first query costs."""
    early = [sample.query_ms for sample in taken if sample.warmup]
    return {
        "queries": len(early),
        "first_query_ms": taken[0].query_ms if taken[0].warmup else None,
        "p50_ms": spread(early)["p50"] if early else None,
    }


def _speedup(taken: Sequence[Sample], reference: Sequence[Sample], field: str) -> dict[str, Any]:
    """Reference over this cell, in the rounds in which both were past their warm-up."""
    by_round = {sample.round: getattr(sample, field) for sample in reference}
    pairs = [(by_round[s.round], getattr(s, field)) for s in taken if s.round in by_round]
    ratio = paired_ratio([a for a, _ in pairs], [b for _, b in pairs])
    return plain(ratio)


def plain(ratio: Ratio) -> dict[str, Any]:
    """A ratio as JSON knows it."""
    return {"p50": ratio.value, "ci95": [ratio.low, ratio.high], "rounds": ratio.n}
