"""From finished episodes to `metrics.json`: one entry per cell, dense beside every pruned one.

Latencies are medians over the queries of all judged episodes, warm-up queries included, because a
robot pays for them too. `dense_query_latency_ms` is that of the dense cell of the same run, whose
episodes were interleaved with the pruned ones.
"""

from __future__ import annotations

from statistics import fmean
from typing import TYPE_CHECKING, Any, Protocol

from policy.types import PHASE_ABOVE_CUT, PHASE_BELOW_CUT, PHASES
from pruning.ceiling import speedup_ceiling
from sim.rollout.types import DENSE, Cell, EpisodeRecord
from sim.statistics import paired_difference, percentile, wilson_interval

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

SCHEMA = "leanvla.rollout/1"


class IdlePrunerError(RuntimeError):
    """A pruned cell in which nothing was ever pruned: its numbers would be the dense model's."""

    exit_code = 1


class Grid(Protocol):
    """Whatever names the cells of a run; `sim.rollout.runner.Plan` does."""

    @property
    def cells(self) -> tuple[Cell, ...]:
        """Squares of the grid."""
        ...


class Episodes(Protocol):
    """Whatever holds finished episodes; `sim.rollout.store.EpisodeStore` does."""

    def of(self, cell: Cell) -> list[EpisodeRecord]:
        """The episodes of a cell, by seed."""
        ...


def summarise(plan: Grid, store: Episodes, *, suite: str, policy: str) -> dict[str, Any]:
    """The content of `metrics.json`; cells without a finished episode are absent."""
    episodes = {cell: store.of(cell) for cell in plan.cells}
    dense = store.of(Cell(DENSE, 1.0))
    return {
        "schema": SCHEMA,
        "runs": [
            {"suite": suite, "policy": policy} | _summarise_cell(cell, records, dense)
            for cell, records in episodes.items()
            if records
        ],
    }


def check_pruners_ran(metrics: dict[str, Any]) -> None:
    """Refuse numbers of a pruner that never ran.

    Raises:
        IdlePrunerError: naming the cells.
    """
    idle = [
        f"{run['method']} @ {run['keep']:g}"
        for run in metrics["runs"]
        if Cell(run["method"], run["keep"]).pruned
        and run["query_latency_ms"]["p50"] is not None
        and run["pruner"]["calls"] == 0
    ]
    if idle:
        raise IdlePrunerError(
            f"the pruner never ran in {', '.join(idle)}: every query was dense, so these are not "
            "results of pruning; check that the policy supports the method, or run longer episodes"
        )


def _summarise_cell(
    cell: Cell, records: Sequence[EpisodeRecord], dense: Sequence[EpisodeRecord]
) -> dict[str, Any]:
    judged, dense_judged = _judged(records), _judged(dense)
    successes = _successes(judged)
    latency, dense_latency = _latency(judged), _latency(dense_judged)
    seconds = sum(record.seconds for record in judged)
    engine = _engines(judged)
    same = len(engine) < 2 and engine == _engines(dense_judged)
    return {
        "method": cell.method,
        "keep": cell.keep,
        "episodes": len(records),
        "successes": successes,
        "failures": len(judged) - successes,
        "errors": len(records) - len(judged),
        "success_rate": _ratio(successes, len(judged)),
        "success_ci95": wilson_interval(successes, len(judged)),
        "wrong_object_rate": _ratio(sum(record.wrong_object for record in judged), len(judged)),
        "paired_difference_to_dense": None if cell.method == DENSE else _paired(judged, dense),
        "query_latency_ms": latency,
        "phase_latency_ms": _phases(judged),
        "dense_query_latency_ms": dense_latency,
        "engine": ", ".join(engine) or None,
        # Two runtimes are two speeds: their ratio would say nothing of pruning.
        "speedup_p50": _ratio(dense_latency["p50"], latency["p50"]) if same else None,
        "speedup_ceiling": _ceiling(judged, dense_judged) if same else None,
        "steps_per_s": _ratio(sum(record.steps for record in judged), seconds),
        "tokens": _tokens(judged),
        "pruner": {
            "calls": sum(len(_pruned_queries(record)) for record in judged),
            "dense_warmup_calls": sum(len(record.warmup) for record in judged),
        },
        "tasks": _tasks(judged),
        "render_profile": next((record.render_profile for record in judged), None),
        "reused_from": records[0].reused_from,
    }


def _engines(records: Iterable[EpisodeRecord]) -> list[str]:
    """What ran these episodes."""
    return sorted({record.engine for record in records} - {""})


def _judged(records: Iterable[EpisodeRecord]) -> list[EpisodeRecord]:
    return [record for record in records if record.outcome != "error"]


def _successes(records: Iterable[EpisodeRecord]) -> int:
    return sum(record.outcome == "success" for record in records)


def _ratio(numerator: float | None, denominator: float | None) -> float | None:
    return numerator / denominator if numerator is not None and denominator else None


def _latency(records: Sequence[EpisodeRecord]) -> dict[str, float | None]:
    values = [ms for record in records for ms in record.query_ms]
    if not values:
        return {"p50": None, "p95": None, "mean": None}
    return {"p50": percentile(values, 50), "p95": percentile(values, 95), "mean": fmean(values)}


def _phases(records: Sequence[EpisodeRecord]) -> dict[str, float]:
    """Median time of every phase, in the order of a query; names of the policy's own come last."""
    present = dict.fromkeys(name for record in records for name in record.phase_ms)
    names = sorted(present, key=lambda name: PHASES.index(name) if name in PHASES else len(PHASES))
    times = {name: [ms for r in records for ms in r.phase_ms.get(name, [])] for name in names}
    return {name: percentile(values, 50) for name, values in times.items() if values}


def _paired(judged: Sequence[EpisodeRecord], dense: Sequence[EpisodeRecord]) -> dict[str, Any]:
    reference = {r.seed: r.outcome == "success" for r in dense if r.outcome != "error"}
    pairs = [(r.outcome == "success", reference[r.seed]) for r in judged if r.seed in reference]
    return paired_difference([t for t, _ in pairs], [r for _, r in pairs])._asdict()


def _ceiling(judged: Sequence[EpisodeRecord], dense: Sequence[EpisodeRecord]) -> float | None:
    """The ceiling of these episodes; None when the policy does not tell phases and lengths."""
    phases, query_ms = _phases(dense), _latency(dense)["p50"]
    told = all(any(r.layer_sequence_tokens) for r in judged if r.sequence_tokens)
    shares = [
        (r.layer_sequence_tokens if told else r.kept_sequence_tokens)[i] / r.sequence_tokens
        for r in judged
        if r.sequence_tokens
        for i in _pruned_queries(r)
    ]
    short_ms = phases.get(PHASE_ABOVE_CUT)
    if query_ms is None or short_ms is None:
        return None
    if not shares:  # nothing was pruned: a dense cell gains nothing, a silent policy is unknown
        silent = any(not r.sequence_tokens for r in judged) and any(map(_pruned_queries, judged))
        return None if silent else 1.0
    if told:  # a mean over all layers: cuts may lie elsewhere than in the dense cell's phases
        short_ms += phases.get(PHASE_BELOW_CUT, 0.0)
    return speedup_ceiling(query_ms, short_ms, fmean(shares))


def _pruned_queries(record: EpisodeRecord) -> list[int]:
    """Queries in which tokens were really dropped."""
    return [i for i, kept in enumerate(record.kept) if kept < record.visual_tokens]


def _tokens(judged: Sequence[EpisodeRecord]) -> dict[str, int]:
    """Visual tokens in, and kept by the median query in which the pruner ran."""
    visual = max((record.visual_tokens for record in judged), default=0)
    kept = [record.kept[i] for record in judged for i in _pruned_queries(record)]
    return {"visual": visual, "kept": round(percentile(kept, 50)) if kept else visual}


def _tasks(judged: Sequence[EpisodeRecord]) -> dict[str, dict[str, Any]]:
    families: dict[str, list[EpisodeRecord]] = {}
    for record in judged:
        families.setdefault(record.task, []).append(record)
    return {
        task: {
            "episodes": len(records),
            "successes": _successes(records),
            "success_rate": _successes(records) / len(records),
            "success_ci95": wilson_interval(_successes(records), len(records)),
        }
        for task, records in sorted(families.items())
    }
