"""What `leanvla replay` leaves behind: `metrics.json`, `report.html`, one table."""

from __future__ import annotations

import json
import sys
from statistics import fmean
from typing import TYPE_CHECKING, Any

from leanvla.commands.arguments import parse_options
from leanvla.commands.rollout_engine import annotate
from leanvla.errors import CHECK_FAILED
from leanvla.run_folder import environment, write_json
from policy.replay.compare import action_error, chunk_error, overlap, recorded_rows
from policy.types import PHASE_ABOVE_CUT, PHASE_BELOW_CUT, PHASES
from pruning.ceiling import speedup_ceiling
from sim.rollout.types import DENSE
from sim.statistics import percentile

if TYPE_CHECKING:
    from pathlib import Path

    from leanvla.commands.replay import Replay
    from leanvla.commands.replay_play import Played
    from policy.replay.trace import Trace

SCHEMA = "leanvla.replay/1"
OPEN_LOOP = (
    "Open loop: every cell sees the recorded pictures whatever it says, so these errors tell how "
    "far answers are apart. They are no success rate; for that there is `leanvla rollout`."
)


def write(config: Replay, folder: Path, played: Played) -> dict[str, Any]:
    """Write `metrics.json` and `report.html`, and give the metrics."""
    from leanvla.report.replay import write_report

    metrics = _metrics(config, played)
    write_json(folder / "metrics.json", metrics)
    write_report(folder / "report.html", metrics, played, {**environment(), "out": str(folder)})
    return metrics


def show(config: Replay, metrics: dict[str, Any], played: Played) -> int:
    """Print the table or JSON; 1 when a check failed.

    A recording of this very policy and cell must repeat itself bit for bit; with `--strict`,
    nothing may be lost.
    """
    if config.json:
        print(json.dumps(metrics, indent=2))
    else:
        from leanvla.report.replay_console import print_table

        print_table(metrics)
    print(f"report: {config.out / 'report.html'}", file=sys.stderr)
    code = 0
    for run in metrics["runs"]:
        again = run["recorded_decisions"]
        if again and again["same_cell"] and again["identical"] < again["compared"]:
            print(
                f"{run['method']} @ {run['keep']:g} recorded {again['compared']} decisions and "
                f"repeats {again['identical']} of them: other weights, versions or hardware?",
                file=sys.stderr,
            )
            code = CHECK_FAILED
    if config.strict and played.episode.losses.any:
        print("--strict: something was lost or had to be mended", file=sys.stderr)
        code = CHECK_FAILED
    return code


def _metrics(config: Replay, played: Played) -> dict[str, Any]:
    info, losses = played.episode.info, played.episode.losses
    runs = [_run(config, played, number) for number in range(len(played.traces))]
    annotate(runs, played.source.notes)
    pairs = [
        overlap(one, other)
        for i, one in enumerate(played.traces)
        for other in played.traces[i + 1 :]
        if played.cells[i].pruned
    ]
    return {
        "schema": SCHEMA,
        "open_loop": OPEN_LOOP,
        "policy": config.policy,
        "recording": {
            "name": info.name,
            "layout": info.layout,
            "instruction": config.instruction or info.instruction,
            "rate_hz": info.rate_hz,
            "duration_s": info.duration_s,
            "facts": info.facts,
            "losses": {
                "seconds": round(losses.seconds, 6),
                "counts": losses.counts,
                "notes": losses.notes,
            },
        },
        "looks": played.looks,
        "decoded": played.decoded,
        "rows": int(sum(map(len, played.rows))),
        "execute": played.execute,
        "covered_s": round(played.covered_s, 6),
        "wall_s": round(played.seconds, 6),
        "times_real_time": played.covered_s / played.seconds if played.seconds else None,
        "not_compared": list(played.fit.notes),
        "runs": runs,
        "kept_overlap": [pair for pair in pairs if pair],
    }


def _run(config: Replay, played: Played, number: int) -> dict[str, Any]:
    cell, trace, dense = played.cells[number], played.traces[number], played.traces[0]
    recorded = recorded_rows(played.fit, played.recorded, len(played.names))
    executed = trace.executed(len(recorded), played.execute)
    latency, dense_latency = _latency(trace), _latency(dense)
    same_engine = played.engines[number] == played.engines[0]
    budget_ms = played.execute / played.episode.info.rate_hz * 1e3
    return {
        "method": cell.method,
        "keep": cell.keep,
        "engine": played.engines[number] or None,
        "queries": len(trace.answers),
        "tokens": _tokens(trace),
        "query_latency_ms": latency,
        "phase_latency_ms": _phases(trace),
        "speedup_p50": _ratio(dense_latency["p50"], latency["p50"]) if same_engine else None,
        "speedup_ceiling": _ceiling(trace, dense) if same_engine else None,
        "late_queries": sum(a.timing.query_ms > budget_ms for a in trace.answers),
        "error_to_recording": action_error(executed, recorded, played.names),
        "error_to_dense": chunk_error(trace, dense, played.names) if number else None,
        "recorded_decisions": _again(config, played, number),
        "decisions_sha256": str(trace.digest),
    }


def _again(config: Replay, played: Played, number: int) -> dict[str, Any] | None:
    parity, facts = played.traces[number].parity, played.episode.info.facts
    if not parity.decisions:
        return None
    cell = played.cells[number]
    same = (facts.get("policy"), facts.get("redaction")) == (config.policy, "none")
    same &= parity.own == parity.decisions
    same &= facts.get("engine", "") == played.source.engine_sha256(cell)
    fields = {} if cell.method == DENSE else parse_options(config.option)
    untouched = config.instruction is None and not config.view
    untouched &= facts.get("options", "{}") == json.dumps(fields, sort_keys=True)
    return {
        "compared": parity.decisions,
        "identical": min(parity.same_actions, parity.same_kept),
        "same_actions": parity.same_actions,
        "same_kept": parity.same_kept,
        "same_cell": untouched and same,
    }


def _latency(trace: Trace) -> dict[str, float | None]:
    values = [answer.timing.query_ms for answer in trace.answers]
    if not values:
        return {"p50": None, "p95": None, "mean": None}
    return {"p50": percentile(values, 50), "p95": percentile(values, 95), "mean": fmean(values)}


def _phases(trace: Trace) -> dict[str, float]:
    times: dict[str, list[float]] = {}
    for answer in trace.answers:
        for name, ms in answer.timing.phase_ms.items():
            times.setdefault(name, []).append(ms)
    order = sorted(times, key=lambda n: PHASES.index(n) if n in PHASES else len(PHASES))
    return {name: percentile(times[name], 50) for name in order}


def _tokens(trace: Trace) -> dict[str, int]:
    visual = max((a.timing.visual_tokens for a in trace.answers), default=0)
    kept = [a.timing.kept_tokens for a in trace.answers if a.timing.kept_tokens < visual]
    return {"visual": visual, "kept": round(percentile(kept, 50)) if kept else visual}


def _ceiling(trace: Trace, dense: Trace) -> float | None:
    phases, query_ms = _phases(dense), _latency(dense)["p50"]
    timings = [answer.timing for answer in trace.answers if answer.timing.sequence_tokens]
    layers_ms = phases.get(PHASE_ABOVE_CUT)
    if query_ms is None or layers_ms is None or not timings:
        return None
    if all(timing.layer_sequence_tokens for timing in timings):  # cuts may lie anywhere
        layers_ms += phases.get(PHASE_BELOW_CUT, 0.0)
        shares = [timing.layer_sequence_tokens / timing.sequence_tokens for timing in timings]
    else:
        shares = [timing.kept_sequence_tokens / timing.sequence_tokens for timing in timings]
    return speedup_ceiling(query_ms, layers_ms, fmean(shares))


def _ratio(numerator: float | None, denominator: float | None) -> float | None:
    return numerator / denominator if numerator is not None and denominator else None
