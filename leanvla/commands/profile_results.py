"""What `leanvla profile` writes and prints: metrics, samples, trace, report, table."""

from __future__ import annotations

import json
import resource
from statistics import fmean
from typing import TYPE_CHECKING, Any

from engines.profile.energy import NOT_READABLE
from engines.profile.samples import FILE, read_samples, to_lines
from engines.profile.summary import steady, summarise
from engines.profile.trace import chrome_trace, first_rounds
from leanvla.commands.profile_cells import DENSE
from leanvla.errors import UsageError
from leanvla.run_folder import write_json, write_text
from policy.openvla.macs import PROMPT_TOKENS, query_macs
from policy.openvla.traffic import Cut, cache_bytes, query_stages, weight_bytes
from policy.types import PHASE_ABOVE_CUT, PHASE_BELOW_CUT
from pruning.ceiling import speedup_ceiling
from pruning.types import Budget

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from engines.profile.conditions import Watch
    from engines.profile.measure import Sample
    from leanvla.commands.profile import Profile
    from leanvla.commands.profile_cells import Bench, CellSpec
    from policy.types import Timing

SCHEMA = "leanvla.profile/1"


def build_metrics(
    config: Profile, bench: Bench, samples: Sequence[Sample], watch: Watch
) -> dict[str, Any]:
    """The content of `metrics.json`."""
    measured = summarise(samples, DENSE)
    cells = [_cell(config, bench, spec, measured) for spec in bench.specs]
    return {
        "schema": SCHEMA,
        "subject": subject(config),
        "architecture": _described(bench),
        "device": config.device,
        "runs_on": bench.runs_on,
        "dtype": config.dtype,
        "threads": config.threads,
        "rounds": config.rounds,
        "warmup_rounds": config.warmup,
        "instruction": config.text,
        "scenes": bench.scenes,
        "conditions": watch.summary(),
        "memory": _memory(config, bench),
        "cells": cells,
    }


def energy_metrics(measured: dict[str, Any] | None) -> dict[str, Any]:
    """What `metrics.json` says of energy: J per query by cell and meter, or that none is told."""
    return {"energy": NOT_READABLE if measured is None else measured}


def subject(config: Profile) -> str:
    """What was measured, in words that hide no scaling."""
    if config.engine is not None:
        plans = f" as the plans in {config.plans}" if config.plans else ""
        return f"engine {config.engine}{plans}"
    if not config.shape:
        return f"policy {config.policy}"
    from policy.openvla.shapes import shape

    full = shape(config.shape)
    parts = [f"shape {config.shape} with random weights"]
    if config.layers is not None:
        parts.append(f"{config.layers} of {full.text.num_hidden_layers} decoder layers")
    if config.tower_layers is not None:
        depths = " and ".join(str(tower.depth) for tower in full.towers)
        parts.append(f"{config.tower_layers} of {depths} tower blocks")
    return ", ".join([*parts, "tokenizer of mini"])


def write_folder(
    folder: Path, metrics: dict[str, Any], samples: Sequence[Sample], trace_rounds: int
) -> None:
    """Write everything but `config.yaml` and `env.json`, which are there already."""
    write_text(folder / FILE, to_lines(samples))
    write_json(folder / "metrics.json", metrics)
    trace = chrome_trace(first_rounds(samples, trace_rounds), metrics["subject"])
    write_text(folder / "trace.json", json.dumps(trace, allow_nan=False))
    write_report(folder, metrics, samples)


def write_report(folder: Path, metrics: dict[str, Any], samples: Sequence[Sample]) -> None:
    """Write `report.html` from what the folder holds."""
    from leanvla.report.profile import document

    env = json.loads((folder / "env.json").read_text(encoding="utf-8"))
    write_text(folder / "report.html", document(metrics, steady(samples), env))


def read_folder(folder: Path) -> tuple[dict[str, Any], list[Sample]]:
    """The metrics and samples of a finished profile.

    Raises:
        UsageError: when the folder holds no profile of this version.
        SamplesError: when its samples are missing or damaged.
    """
    path = folder / "metrics.json"
    if not path.is_file():
        raise UsageError(f"{path} is missing: give a folder that `leanvla profile` has finished")
    try:
        metrics = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise UsageError(f"{path} cannot be read: measure again into a new folder") from None
    found = metrics.get("schema") if isinstance(metrics, dict) else None
    if found != SCHEMA:
        raise UsageError(f"{path} is {found!r} and not a profile ({SCHEMA}): measure again")
    return metrics, read_samples(folder)


def show(metrics: dict[str, Any], *, as_json: bool) -> None:
    """Print the results on stdout."""
    if as_json:
        print(json.dumps(metrics, indent=2, allow_nan=False))
        return
    from leanvla.report.profile_console import print_table

    print_table(metrics)


def _cell(
    config: Profile, bench: Bench, spec: CellSpec, measured: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    name = str(spec)
    mine, dense = measured[name], measured[DENSE]
    timings = [t for t in bench.cells[name].timings if not t.dense_warmup]
    cut = _cut(bench, spec, timings[-1])
    ceiling, kind = _ceiling(dense, timings), config.dtype or "float32"
    same_cut = bench.cuts[name] == bench.cuts[DENSE]
    stages = query_stages(bench.architecture, cut, weight_type=kind, data_type=kind)
    return {
        "cell": name,
        "method": spec.method,
        "keep": spec.keep,
        **mine,
        "speedup_ceiling": ceiling,
        "speedup_ceiling_macs": _macs(bench, cut, dense=True) / _macs(bench, cut),
        "attention_rows_ms": _rows_ms(mine, dense) if config.engine and same_cut else None,
        "ceiling_reached": mine["speedup"]["p50"] / ceiling if ceiling else None,
        "cut_layer": cut.layers,
        "tokens": _tokens(timings[-1]),
        "stages": [
            {
                "stage": stage.name,
                "macs": round(stage.macs),
                "weights_bytes": round(stage.weight_bytes),
                "other_bytes": round(stage.data_bytes),
            }
            for stage in stages
        ],
        "macs": round(_macs(bench, cut)),
        "kv_cache_bytes": cache_bytes(bench.architecture, cut, kind),
    }


def _rows_ms(mine: dict[str, Any], dense: dict[str, Any]) -> float | None:
    """What a split engine computes for its choice inside the lower layers: their excess over dense.

    Both run the same layers on the same tokens; in torch these rows are booked as `selection`.
    """
    below = mine["phase_ms"].get(PHASE_BELOW_CUT), dense["phase_ms"].get(PHASE_BELOW_CUT)
    if below[0] is None or below[1] is None:
        return None
    return max(0.0, below[0]["p50"] - below[1]["p50"])


def _cut(bench: Bench, spec: CellSpec, timing: Timing) -> Cut:
    """Where this cell cuts, and the prompt that it really read."""
    network = bench.architecture
    prompt = timing.sequence_tokens - timing.visual_tokens - (1 if network.proprio_dim else 0)
    if network.decoding == "parallel":
        prompt -= network.chunk * network.dof + 1
    kept = Budget(spec.keep).tokens(network.tokens_per_view)
    return Cut(bench.cuts[str(spec)], kept, prompt if timing.sequence_tokens else PROMPT_TOKENS)


def _macs(bench: Bench, cut: Cut, *, dense: bool = False) -> float:
    kept = bench.architecture.tokens_per_view if dense else cut.kept_per_view
    return query_macs(
        bench.architecture, cut=cut.layers, kept_per_view=kept, prompt_tokens=cut.prompt_tokens
    ).total


def _ceiling(dense: dict[str, Any], timings: Sequence[Timing]) -> float | None:
    """Amdahl's limit from the dense phases; None when the policy does not tell what it needs."""
    above = dense["phase_ms"].get(PHASE_ABOVE_CUT)
    if above is None or not all(timing.sequence_tokens for timing in timings):
        return None
    layers_ms = above["p50"]
    if all(timing.layer_sequence_tokens for timing in timings):  # cuts may lie anywhere
        layers_ms += dense["phase_ms"].get(PHASE_BELOW_CUT, {"p50": 0.0})["p50"]
        kept = fmean(timing.layer_sequence_tokens / timing.sequence_tokens for timing in timings)
    else:
        kept = fmean(timing.kept_sequence_tokens / timing.sequence_tokens for timing in timings)
    return speedup_ceiling(dense["query_ms"]["p50"], layers_ms, kept)


def _tokens(timing: Timing) -> dict[str, int]:
    return {
        "visual": timing.visual_tokens,
        "kept": timing.kept_tokens,
        "sequence": timing.sequence_tokens,
        "kept_sequence": timing.kept_sequence_tokens,
    }


def _memory(config: Profile, bench: Bench) -> dict[str, int | str]:
    """Weights as stored, and the most that process and device ever held."""
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    device = "not readable" if bench.peak_bytes is None else bench.peak_bytes()
    return {
        "weights_bytes": weight_bytes(bench.architecture, config.dtype or "float32"),
        "process_peak_bytes": resident,
        "device_peak_bytes": device,
    }


def _described(bench: Bench) -> dict[str, object]:
    from leanvla.commands.inspect_ import describe

    card = describe(bench.architecture, bench.cuts[DENSE])
    return {**card["architecture"], "parameters": card["parameters"]}  # type: ignore[dict-item]
