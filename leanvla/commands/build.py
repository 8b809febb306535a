"""`leanvla build`: ONNX files to TensorRT plans, and what is in them."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tyro.conf import Positional

from leanvla.errors import CHECK_FAILED, UsageError

if TYPE_CHECKING:
    from engines.tensorrt.builder import BuildReport
    from engines.tensorrt.options import BuildOptions, Profile


@dataclass(frozen=True)
class Build:
    """Build a plan for every ONNX file, with TensorRT on its device or TensorRT-RTX anywhere.

    Writes `NAME.plan` for every `NAME.onnx`, and `plans.json` with inputs, outputs, layers, hashes
    and whether tokens are pruned inside. Precision is the graph's own.

    Attributes:
        onnx: an ONNX file, or a folder that holds some.
        out: folder of the plans.
        library: `tensorrt` or `tensorrt_rtx`; the one that suits this machine when left out.
        capability: compute capabilities to build for, separated by commas (TensorRT-RTX).
        rungs: values of an input that is a run-time budget, one profile each, e.g. `k=64,32,16`.
        timing_cache: file that remembers measured kernels between builds (TensorRT).
        optimization_level: 0 (fast build) to 5 (fast plan).
        workspace_mb: most scratch memory that a kernel may take.
        version_compatible: plan runs on later versions, too (TensorRT).
        weight_streaming: weights may stay on the host.
        refit: weights can be replaced later; needs a driver.
        json: print `plans.json` instead of the table.
    """

    onnx: Positional[Path]
    out: Path = Path("runs/plans")
    library: str | None = None
    capability: str | None = None
    rungs: str | None = None
    timing_cache: Path | None = None
    optimization_level: int | None = None
    workspace_mb: int | None = None
    version_compatible: bool = False
    weight_streaming: bool = False
    refit: bool = False
    json: bool = False


def run(config: Build) -> int:
    """Build all, write the report, print it; 1 when a rung of an engine would not prune.

    Raises:
        UsageError: when there is no ONNX file, or an argument makes no sense.
        EngineError: when a graph cannot be built.
        EngineUnavailableError: when a library or a driver is missing.
    """
    from engines.tensorrt.builder import build_plan
    from engines.tensorrt.plans import REPORT, SCHEMA
    from leanvla.run_folder import write_json

    graphs, options = _graphs(config.onnx), _options(config)
    plans, reports = {}, {}
    for graph in graphs:
        plan = config.out / f"{graph.stem}.plan"
        reports[graph.stem] = build_plan(graph, plan, options)
        plans[plan.name] = {"onnx": str(graph)} | _plain(reports[graph.stem])
        print(f"built {plan}", file=sys.stderr, flush=True)
    unpruned = _unpruned(config.onnx, reports)
    result = {"schema": SCHEMA, "executed": False, "plans": plans, "unpruned_rungs": unpruned}
    write_json(config.out / REPORT, result)
    if config.json:
        print(json.dumps(result, indent=2))
    else:
        _show(plans, unpruned)
    return CHECK_FAILED if unpruned else 0


def _unpruned(path: Path, reports: dict[str, BuildReport]) -> dict[str, str]:
    """Rungs of an engine whose plans do not prune; nothing is known of other graphs."""
    from engines.manifest import is_engine, read_manifest
    from policy.openvla.engine.pruned_plans import unpruned

    if not is_engine(path):
        return {}
    contents = {name: report.contents for name, report in reports.items()}
    return unpruned(read_manifest(path), contents)


def _graphs(path: Path) -> list[Path]:
    found = sorted(path.rglob("*.onnx")) if path.is_dir() else [path]
    if not found:
        raise UsageError(f"{path} holds no ONNX file: export one first")
    names = [graph.stem for graph in found]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UsageError(f"{path} has several files named {twice[0]}.onnx: build them one by one")
    return found


def _options(config: Build) -> BuildOptions:
    from engines.tensorrt.options import BuildOptions
    from leanvla.commands.arguments import split_list

    capabilities = split_list(config.capability, "--capability") if config.capability else []
    workspace = None if config.workspace_mb is None else config.workspace_mb * 1_000_000
    return BuildOptions(
        library=config.library,
        capabilities=tuple(capabilities),
        profiles=_profiles(config.rungs),
        workspace_bytes=workspace,
        timing_cache=config.timing_cache,
        optimization_level=config.optimization_level,
        version_compatible=config.version_compatible,
        weight_streaming=config.weight_streaming,
        refit=config.refit,
    )


def _profiles(rungs: str | None) -> tuple[Profile, ...]:
    from engines.tensorrt.options import ladder_profiles

    if rungs is None:
        return ()
    name, _, values = rungs.partition("=")
    parts = [part.strip() for part in values.split(",")]
    if not name or not all(part.isdigit() for part in parts):
        raise UsageError(f"--rungs is {rungs!r}: give an input and its values, e.g. k=64,32,16")
    return ladder_profiles(name, [int(part) for part in parts])


def _plain(report: BuildReport) -> dict[str, Any]:
    from leanvla.run_folder import to_plain

    return {**to_plain(report), "prunes": report.contents.prunes}


def _pruning(plan: dict[str, Any]) -> str:
    """Split graphs choose in one and gather in the next."""
    contents = plan["contents"]
    if plan["prunes"]:
        return "yes"
    if contents["choices"]:
        return "chooses"
    return "gathers" if "kept" in contents["indexed_by"] else "no"


def _show(plans: dict[str, dict[str, Any]], unpruned: dict[str, str]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0))
    for head in ("plan", "MB", "s", "library", "for", "pruning inside", "profiles"):
        table.add_column(head, no_wrap=True)
    for name, plan in plans.items():
        table.add_row(
            name,
            f"{plan['plan_bytes'] / 1e6:.1f}",
            f"{plan['build_s']:.1f}",
            f"{plan['library']} {plan['version']}",
            " ".join(plan["capabilities"]),
            _pruning(plan),
            " ".join(plan["profiles"]),
        )
    console = Console(highlight=False, markup=False, width=132)
    console.print(table)
    for rung, why in unpruned.items():
        console.print(f"{rung}: pruning is not in its plans: {why}")
    console.print("Built, not executed: whether they are right shows on the device.")
