"""`leanvla profile`: where a query's time goes, what pruning saves, and what it could save."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from leanvla.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from engines.profile.measure import Sample

NOT_COMPARED = ("out", "compare", "tolerance", "reuse", "json")


@dataclass(frozen=True)
class Profile:
    """Measure a policy dense and pruned, interleaved in the same rounds, and say where time goes.

    Writes `config.yaml`, `env.json`, `metrics.json`, `samples.jsonl`, `trace.json` (opens in
    Perfetto) and `report.html` into `out`. With `--compare OTHER` the exit code is 1 when a cell is
    slower than in the profile folder OTHER, and 0 otherwise.

    Attributes:
        policy: packaged policy, or checkpoint folder.
        engine: an exported engine to measure instead of the eager policy, or the name of a policy
            that ships with graphs; cells are rungs of it.
        torch: measure the eager policy that the engine was made from as well, in the same rounds.
        plans: TensorRT plans of that engine, a folder that `leanvla build` wrote, to run instead.
        shape: an architecture with random weights instead of a policy, see `--shape list`; its
            tokenizer is the packaged small one.
        layers: decoder layers of the shape, to fit a small machine; nothing else is scaled.
        tower_layers: blocks of each vision tower of the shape.
        method: pruning methods, separated by commas; dense always runs beside them.
        keep: keep ratios in (0, 1], separated by commas.
        allow_cpu: go on with the CPU when ONNX Runtime lacks the device's provider.
        device: `cpu` or `cuda`.
        dtype: `float32`, `bfloat16` or `float16`; float32 when left out, float16 for predictions.
        threads: processor threads.
        rounds: rounds that count; in each of them every cell answers the same query.
        warmup: rounds before them, kept apart.
        seed: of the order of cells, of pictures and of random weights.
        image: pictures to show, one per camera in the policy's order; made up when left out.
        frame_size: side of made-up frames, pixels.
        text: what the policy is told.
        unnorm_key: data set whose statistics give actions their units.
        energy_seconds: how long every cell answers alone afterwards, where energy can be read.
        trace_rounds: rounds in `trace.json`, besides the first of the warm-up.
        out: folder of the results.
        compare: another profile folder to compare with.
        tolerance: relative change of a median that is not worth a verdict.
        reuse: measure nothing, use what `out` holds.
        predict: instead of measuring, predict lower bounds on devices of the table of peak rates,
            separated by commas; `cpu` measures this processor's rates first, `list` names them.
        cut: full decoder layers to predict with; the family's rule when left out.
        json: print `metrics.json` instead of the table.
    """

    policy: str = "mini"
    engine: Path | None = None
    torch: bool = False
    plans: Path | None = None
    shape: str | None = None
    layers: int | None = None
    tower_layers: int | None = None
    method: str = "vla_pruner"
    keep: str = "0.25"
    allow_cpu: bool = False
    device: str = "cpu"
    dtype: str | None = None
    threads: int = 1
    rounds: int = 50
    warmup: int = 5
    seed: int = 0
    image: tuple[Path, ...] = ()
    frame_size: int = 256
    text: str = "pick up the red cube"
    unnorm_key: str | None = None
    energy_seconds: float = 3.0
    trace_rounds: int = 3
    out: Path = Path("runs/profile")
    compare: Path | None = None
    tolerance: float = 0.03
    reuse: bool = False
    predict: str | None = None
    cut: int | None = None
    json: bool = False


def run(config: Profile) -> int:
    """Measure, predict or read again, write, print, compare; returns the exit code.

    Raises:
        UsageError: for an impossible configuration, before anything runs.
        EnvironmentFault: when this machine lacks the device.
        NothingMeasuredError: when a cell never left its warm-up.
    """
    if config.shape == "list":
        from policy.openvla.shapes import shape_names

        print("\n".join(shape_names()))
        return 0
    if config.predict is not None:
        from leanvla.commands.profile_predict import run_prediction

        return run_prediction(config)
    from leanvla.commands.engine_folder import engine_folder
    from leanvla.commands.profile_results import read_folder, show

    if config.engine is not None:
        config = replace(config, engine=engine_folder(config.engine))
    if config.reuse:
        metrics, samples = read_folder(config.out)
    else:
        metrics, samples = _measure(config)
    if config.compare is not None:
        return _compare(config, metrics, samples)
    show(metrics, as_json=config.json)
    return 0


def _measure(config: Profile) -> tuple[dict, list[Sample]]:
    from engines.profile.conditions import Watch
    from engines.profile.energy import find_meters, measure_energy
    from engines.profile.measure import Schedule, measure
    from leanvla.commands.profile_cells import make_bench, precision
    from leanvla.commands.profile_results import build_metrics, energy_metrics, write_folder
    from leanvla.commands.profile_torch import beside_torch, with_torch
    from leanvla.run_folder import open_run_folder

    if config.plans is not None and config.engine is None:
        raise UsageError("--plans run the graphs of an engine: name it with --engine")
    if config.torch and config.engine is None:
        raise UsageError("--torch measures torch beside an engine: name one with --engine")
    if config.engine is not None and config.dtype is not None:
        raise UsageError("--engine has the precision that it was exported in: leave --dtype out")
    config = replace(config, dtype=precision(config))
    schedule = Schedule(config.rounds, config.warmup, config.seed)
    bench = make_bench(config)
    all_cells = with_torch(config, bench).cells if config.torch else bench.cells
    folder = open_run_folder(config.out, config, resume=False, ignore=NOT_COMPARED)
    watch = Watch()
    samples = measure(
        all_cells,
        schedule,
        read=watch.read,
        synchronize=bench.synchronize,
        each_round=_progress(schedule.rounds + schedule.warmup),
    )
    energy = measure_energy(
        bench.cells,
        config.energy_seconds,
        find_meters(),
        first=schedule.rounds + schedule.warmup,
        synchronize=bench.synchronize,
    )
    metrics = build_metrics(config, bench, samples, watch) | energy_metrics(energy)
    if config.torch:
        metrics["beside_torch"] = beside_torch(config, bench, metrics, samples)
    write_folder(folder, metrics, samples, config.trace_rounds)
    say(f"report: {folder / 'report.html'}")
    return metrics, samples


def _compare(config: Profile, metrics: dict, samples: list[Sample]) -> int:
    from leanvla.commands.profile_compare import compare_folders

    if config.compare is None or config.compare.resolve() == config.out.resolve():
        raise UsageError("--compare names the folder of --out itself: give another profile")
    return compare_folders(config, metrics, samples)


def _progress(total: int) -> Callable[[int], None]:
    """Says on stderr how far the rounds are, ten times in all."""
    step = max(1, total // 10)

    def said(number: int) -> None:
        if (number + 1) % step == 0 or number + 1 == total:
            say(f"{number + 1}/{total} rounds")

    return said


def say(sentence: str) -> None:
    """Talk goes to stderr."""
    print(sentence, file=sys.stderr, flush=True)
