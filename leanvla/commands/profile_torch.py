"""`leanvla profile --engine ENGINE --torch`: the engine's eager model in the same rounds.

A runtime cannot be faster than the products of the network allow. So the ratio stands beside the
most that it could be here: torch's time over the least that this processor needs for them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from engines.profile.roofline import Stage, bounds, query_ms
from engines.profile.statistics import paired_ratio, spread
from engines.profile.summary import plain, steady
from leanvla.errors import EnvironmentFault

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from engines.profile.measure import Sample
    from engines.profile.roofline import Peak
    from leanvla.commands.profile import Profile
    from leanvla.commands.profile_cells import Bench, CellSpec
    from policy.openvla.policy import OpenVLAPolicy

WANTED = 1.5
"""Times as fast as torch eager: below it the report says what stands in the way."""
WHOLE_PRECISION = "float32"
"""Precision whose least time is measured; an engine in fewer bits may well pass it."""


def torch_name(spec: CellSpec) -> str:
    """What an engine's cell is called when torch answers: `torch: dense`."""
    return f"torch: {spec}"


def with_torch(config: Profile, bench: Bench) -> Bench:
    """The bench with an eager cell beside every cell of the engine, on the same weights.

    Raises:
        EnvironmentFault: when torch is missing.
        EngineError: when the checkpoint has other weights than the engine.
    """
    from policy.profiling import PolicyCell

    made = dict(_eager(config, bench))
    torch_cells = {name: PolicyCell(p, bench.seen, config.text) for name, p in made.items()}
    return replace(bench, cells=bench.cells | torch_cells)


def beside_torch(
    config: Profile, bench: Bench, metrics: dict[str, Any], samples: Sequence[Sample]
) -> dict[str, Any]:
    """What `metrics.json` says of torch: its times, their ratio to the engine's, and the most."""
    import torch

    from engines.profile.calibrate import measure_processor

    whole = config.device == "cpu" and config.dtype == WHOLE_PRECISION
    peak = measure_processor(torch.float32) if whole else None
    by_cell: dict[str, list[Sample]] = {}
    for sample in steady(samples):
        by_cell.setdefault(sample.cell, []).append(sample)
    cells = {cell["cell"]: cell for cell in metrics["cells"]}
    return {
        "wanted": WANTED,
        "flop_per_s": None if peak is None else peak.flop_per_s,
        "cells": [
            _beside(cells[str(spec)], by_cell[str(spec)], by_cell[torch_name(spec)], peak)
            for spec in bench.specs
        ],
    }


def _eager(config: Profile, bench: Bench) -> Iterator[tuple[str, OpenVLAPolicy]]:
    """The policies that the engine's rungs were made from; they share one network."""
    import importlib.util

    if importlib.util.find_spec("torch") is None:
        raise EnvironmentFault("--torch needs torch: pip install 'leanvla[torch]'")
    import torch

    from engines.manifest import check_weights_of, read_manifest
    from policy.openvla.checkpoint import weights_sha256
    from policy.openvla.policy import OpenVLAPolicy
    from policy.registry import resolve_policy

    folder = config.engine
    if folder is None:
        return
    manifest = read_manifest(folder)
    checkpoint = resolve_policy(manifest.policy)
    check_weights_of(folder, manifest, weights_sha256(checkpoint))
    torch.set_num_threads(config.threads)
    for spec in bench.specs:
        policy = OpenVLAPolicy.from_folder(
            checkpoint,
            method=spec.make(),
            unnorm_key=config.unnorm_key,
            device=config.device,
        )
        yield torch_name(spec), policy


def _beside(
    cell: dict[str, Any], engine: Sequence[Sample], torch: Sequence[Sample], peak: Peak | None
) -> dict[str, Any]:
    """One rung. The bound goes by processor time: it was measured in that."""
    by_round = {sample.round: sample for sample in engine}
    pairs = [(sample, by_round[sample.round]) for sample in torch if sample.round in by_round]
    wall = paired_ratio([a.query_ms for a, _ in pairs], [b.query_ms for _, b in pairs])
    processor = paired_ratio([a.cpu_ms for a, _ in pairs], [b.cpu_ms for _, b in pairs])
    least_ms = None if peak is None else _least_ms(cell, peak)
    torch_cpu_ms = spread([sample.cpu_ms for sample in torch])
    return {
        "cell": cell["cell"],
        "torch_query_ms": spread([sample.query_ms for sample in torch]),
        "torch_cpu_ms": torch_cpu_ms,
        "speedup": plain(wall),
        "cpu_speedup": plain(processor),
        "least_ms": least_ms,
        "speedup_at_most": None if least_ms is None else torch_cpu_ms["p50"] / least_ms,
    }


def _least_ms(cell: dict[str, Any], peak: Peak) -> float:
    """The least time for a cell's operations."""
    stages = (
        Stage(s["stage"], s["macs"], s["weights_bytes"], s["other_bytes"]) for s in cell["stages"]
    )
    return query_ms(bounds(stages, peak))
