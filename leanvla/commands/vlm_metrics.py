"""From answers to `metrics.json`: one entry per task and cell, dense beside every pruned one.

Times are of answers that were given in turn on one machine; a speed-up is the median, over
questions, of dense time over pruned time. A score that is no yes or no (VQA accuracy) enters
Wilson's interval as a share, which makes it wider than it need be, and the paired test as right
from one half on.
"""

from __future__ import annotations

from statistics import fmean, median
from typing import TYPE_CHECKING, Any

from pruning.macs import prefill_macs
from sim.statistics import paired_difference, percentile, wilson_interval
from vlm.fit import without_history
from vlm.runner import DENSE
from vlm.types import Judged

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from vlm.model import DecoderShape
    from vlm.runner import Asked, Plan
    from vlm.store import AnswerStore, Cell, Record

SCHEMA = "leanvla.vlm/1"
RIGHT = 0.5
RETENTION = ("recall", "iou", "precision_omega", "omega_share")


def summarise(plan: Plan, store: AnswerStore, model: str, shape: DecoderShape) -> dict[str, Any]:
    """The content of `metrics.json`; cells without an answer are absent."""
    runs = []
    for asked in plan.asked:
        dense = store.of(asked.task.name, DENSE)
        for cell in plan.methods:
            records = store.of(asked.task.name, cell)
            if records:
                note = {"note": without_history(cell.method, plan.methods[cell])}
                runs.append({"model": model} | _cell(asked, cell, records, dense, shape) | note)
    return {"schema": SCHEMA, "runs": runs}


def _cell(
    asked: Asked,
    cell: Cell,
    answered: Mapping[str, Record],
    dense: Mapping[str, Record],
    shape: DecoderShape,
) -> dict[str, Any]:
    records = list(answered.values())
    both = [(record, dense[record.id]) for record in records if record.id in dense]
    scores = [record.score for record in records]
    judged = [
        Judged(question, answered[question.id].answer, answered[question.id].score)
        for question in asked.questions
        if question.id in answered
    ]
    return {
        "task": asked.task.name,
        "method": cell.method,
        "keep": cell.keep,
        "questions": len(records),
        "accuracy": fmean(scores),
        "accuracy_ci95": wilson_interval(sum(scores), len(scores)),
        "paired_difference_to_dense": None if cell == DENSE else _paired(both),
        "figures": asked.task.summarise(judged),
        "kinds": _kinds(judged),
        "lengths": _lengths(asked, answered),
        "prefill_ms": _times([r.prefill_ms for r in records]),
        "decode_ms_per_token": _times([ms for r in records for ms in r.decode_ms]),
        "query_ms": _times([r.query_ms for r in records]),
        "selection_ms": _times([r.selection_ms for r in records]),
        "prefill_speedup_p50": _speedup(both, lambda r: r.prefill_ms),
        "query_speedup_p50": _speedup(both, lambda r: r.query_ms),
        "tokens": _tokens(records),
        "layers": _layers(records, shape),
        "prefill_macs": round(fmean(_macs(r, shape) for r in records)),
        "prefill_macs_ratio": _macs_ratio(both, shape),
        "peak_memory_mb": max(
            (r.peak_memory_mb for r in records if r.peak_memory_mb), default=None
        ),
        "retention": _retention(records),
    }


def _paired(both: Sequence[tuple[Record, Record]]) -> dict[str, Any]:
    treated = [record.score >= RIGHT for record, _ in both]
    reference = [dense.score >= RIGHT for _, dense in both]
    return paired_difference(treated, reference)._asdict()


def _kinds(judged: Sequence[Judged]) -> dict[str, dict[str, float]]:
    kinds: dict[str, list[float]] = {}
    for one in judged:
        kinds.setdefault(one.question.kind, []).append(one.score)
    return {
        kind: {"questions": len(scores), "accuracy": fmean(scores)}
        for kind, scores in sorted(kinds.items())
        if kind
    }


def _lengths(asked: Asked, answered: Mapping[str, Record]) -> list[dict[str, float]]:
    """Accuracy against the length of the context, in seconds of video and in tokens."""
    lengths: dict[float, list[Record]] = {}
    for question in asked.questions:
        if question.seconds is not None and question.id in answered:
            lengths.setdefault(question.seconds, []).append(answered[question.id])
    return [
        {
            "seconds": seconds,
            "prompt_tokens": round(median(r.prompt_tokens for r in records)),
            "questions": len(records),
            "accuracy": fmean(r.score for r in records),
        }
        for seconds, records in sorted(lengths.items())
    ]


def _times(values: Sequence[float]) -> dict[str, float | None]:
    if not values:
        return {"p50": None, "p95": None}
    return {"p50": percentile(values, 50), "p95": percentile(values, 95)}


def _speedup(
    both: Sequence[tuple[Record, Record]], time_ms: Callable[[Record], float]
) -> float | None:
    ratios = [time_ms(dense) / time_ms(record) for record, dense in both if time_ms(record) > 0]
    return median(ratios) if ratios else None


def _tokens(records: Sequence[Record]) -> dict[str, int]:
    return {
        "prompt": round(median(r.prompt_tokens for r in records)),
        "visual": round(median(r.visual_tokens for r in records)),
        "kept": round(median(r.kept_tokens for r in records)),
    }


def _layers(records: Sequence[Record], shape: DecoderShape) -> dict[str, int]:
    """How many decoder layers computed every token of the prompt."""
    full = [sum(t >= r.prompt_tokens for t in r.layer_tokens) for r in records]
    return {"dense": round(median(full)), "of": shape.layers}


def _macs(record: Record, shape: DecoderShape) -> int:
    return prefill_macs(record.layer_tokens, shape.width, shape.mlp_width)


def _macs_ratio(both: Sequence[tuple[Record, Record]], shape: DecoderShape) -> float | None:
    if not both:
        return None
    return fmean(_macs(d, shape) for _, d in both) / fmean(_macs(r, shape) for r, _ in both)


def _retention(records: Sequence[Record]) -> dict[str, float] | None:
    means = {}
    for name in RETENTION:
        known = [value for r in records if (value := getattr(r, name)) is not None]
        if known:
            means[name] = fmean(known)
    return means or None
