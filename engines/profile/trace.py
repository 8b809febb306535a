"""Queries as a trace that Perfetto and `chrome://tracing` open: one row per cell, phases below."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from engines.profile.measure import Sample


def chrome_trace(samples: Iterable[Sample], title: str) -> dict[str, Any]:
    """The trace-event JSON of some samples: complete events (`ph: X`), times in microseconds.

    Args:
        samples: which queries to show.
        title: name of the process row.
    """
    samples = list(samples)
    rows = {cell: row for row, cell in enumerate(dict.fromkeys(s.cell for s in samples), 1)}
    names = [_meta("process_name", title), *(_meta("thread_name", c, r) for c, r in rows.items())]
    events = [event for sample in samples for event in _events(sample, rows[sample.cell])]
    return {"displayTimeUnit": "ms", "traceEvents": [*names, *events]}


def first_rounds(samples: Sequence[Sample], rounds: int) -> list[Sample]:
    """The samples of the first rounds that count, and of the first warm-up round."""
    counted = sorted({sample.round for sample in samples if not sample.warmup})
    shown = {0, *counted[:rounds]}
    return [sample for sample in samples if sample.round in shown]


def _meta(name: str, value: str, row: int = 0) -> dict[str, Any]:
    return {"ph": "M", "pid": 1, "tid": row, "name": name, "args": {"name": value}}


def _events(sample: Sample, row: int) -> Iterator[dict[str, Any]]:
    start_us = sample.start_s * 1e6
    about = {
        "round": sample.round,
        "warmup": sample.warmup,
        "cpu_ms": round(sample.cpu_ms, 4),
        "preempted": sample.preempted,
        "throttled": sample.throttled,
    }
    name = f"query {sample.round}" + (" (warm-up)" if sample.warmup else "")
    yield _complete(name, row, start_us, sample.query_ms, about)
    for phase, began_ms, ended_ms in sample.spans:
        yield _complete(phase, row, start_us + began_ms * 1e3, ended_ms - began_ms)


def _complete(
    name: str, row: int, start_us: float, ms: float, about: dict[str, Any] | None = None
) -> dict[str, Any]:
    times = {"ts": round(start_us, 3), "dur": round(ms * 1e3, 3)}
    return {"ph": "X", "pid": 1, "tid": row, "name": name, **times, "args": about or {}}
