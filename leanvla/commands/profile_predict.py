"""`leanvla profile --predict`: lower bounds per stage on devices that are not here."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from engines.profile.peaks import device_names, memory_bytes, peak_of, reported, sources_of
from engines.profile.roofline import Peak, bounds, query_ms
from leanvla.commands.arguments import parse_ratio, split_list
from leanvla.commands.profile_cells import architecture
from leanvla.commands.profile_results import subject
from leanvla.errors import UsageError
from policy.openvla.traffic import BYTES_OF, Cut, query_stages, weight_bytes
from pruning.base import default_cut
from pruning.types import Budget

if TYPE_CHECKING:
    from leanvla.commands.profile import Profile
    from policy.openvla.config import OpenVLAConfig

SCHEMA = "leanvla.profile.prediction/1"
THIS_PROCESSOR = "cpu"
DEFAULT_PRECISION = "float16"


def run_prediction(config: Profile) -> int:
    """Count, divide by peak rates, print and write; every row is marked as predicted."""
    if config.predict == "list":
        print("\n".join([*device_names(), THIS_PROCESSOR]))
        return 0
    result = predict(config)
    _write(config, result)
    if config.json:
        print(json.dumps(result, indent=2, allow_nan=False))
    else:
        from leanvla.report.prediction import print_prediction

        print_prediction(result)
    return 0


def predict(config: Profile) -> dict[str, Any]:
    """The content of `metrics.json` of a prediction.

    Raises:
        UsageError: for a list, ratio or cut that makes no sense.
        UnknownPeakError: for a device or precision without peak rates.
    """
    network = architecture(config)
    precision = config.dtype or DEFAULT_PRECISION
    if precision not in BYTES_OF:
        raise UsageError(f"--dtype is {precision!r}: choose one of {', '.join(BYTES_OF)}")
    devices = split_list(config.predict or "", "--predict")
    keeps = [1.0, *(k for t in split_list(config.keep, "--keep") if (k := parse_ratio(t)) < 1)]
    cut = _cut(config, network)
    peaks = {name: _peak(name, precision) for name in devices}
    return {
        "schema": SCHEMA,
        "subject": subject(config).replace(" with random weights", ""),
        "precision": precision,
        "cut_layer": cut,
        "weights_bytes": weight_bytes(network, precision),
        "devices": [
            _device(config, network, name, peak, cut, keeps, precision)
            for name, peak in peaks.items()
        ],
    }


def _cut(config: Profile, network: OpenVLAConfig) -> int:
    layers = network.text.num_hidden_layers
    causal = network.decoding == "autoregressive"
    cut = config.cut if config.cut is not None else network.cut_layer
    cut = default_cut(layers, causal) if cut is None else cut
    if not 0 <= cut < layers:
        raise UsageError(
            f"--cut is {cut}: a decoder of {layers} layers is cut at 0 to {layers - 1}"
        )
    return cut


def _peak(name: str, precision: str) -> Peak:
    if name != THIS_PROCESSOR:
        return peak_of(name, precision)
    import torch

    from engines.profile.calibrate import measure_processor

    kinds = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if precision not in kinds:
        raise UsageError(f"this processor is measured in {', '.join(kinds)}, not in {precision}")
    torch.set_num_threads(1)
    return measure_processor(kinds[precision])


def _device(
    config: Profile,
    network: OpenVLAConfig,
    name: str,
    peak: Peak,
    cut: int,
    keeps: list[float],
    precision: str,
) -> dict[str, Any]:
    cells = [_cell(network, peak, cut, keep, precision) for keep in keeps]
    dense = cells[0]["query_at_least_ms"]
    measured = name == THIS_PROCESSOR
    return {
        "device": name,
        "name": peak.name,
        "flop_per_s": peak.flop_per_s,
        "byte_per_s": peak.byte_per_s,
        "rates": "measured here" if measured else "published",
        "weights_fit": None if measured else weight_bytes(network, precision) < memory_bytes(name),
        "sources": [] if measured else sources_of(name),
        "cells": [{**cell, "speedup": dense / cell["query_at_least_ms"]} for cell in cells],
        "reported_by_others": [] if _scaled(config) else reported(name, config.shape),
    }


def _cell(
    network: OpenVLAConfig, peak: Peak, cut: int, keep: float, precision: str
) -> dict[str, Any]:
    kept = Budget(keep).tokens(network.tokens_per_view)
    stages = query_stages(network, Cut(cut, kept), weight_type=precision, data_type=precision)
    found = bounds(stages, peak)
    return {
        "keep": keep,
        "predicted": True,
        "query_at_least_ms": query_ms(found),
        "stages": [
            {"stage": each.name, "at_least_ms": each.ms, "limited_by": each.limited_by}
            for each in found
        ],
    }


def _scaled(config: Profile) -> bool:
    return config.layers is not None or config.tower_layers is not None


def _write(config: Profile, result: dict[str, Any]) -> None:
    from leanvla.report.prediction import document
    from leanvla.run_folder import open_run_folder, write_json, write_text

    folder = open_run_folder(config.out, config, resume=False)
    write_json(folder / "metrics.json", result)
    write_text(folder / "report.html", document(result))
