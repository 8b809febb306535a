"""`leanvla doctor`: can this machine do the work? Every failing check names its remedy."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from leanvla.errors import explain
from leanvla.run_folder import usable_cores, version_of
from policy.registry import ZOO

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SCHEMA = "leanvla.doctor/1"
OLDEST_PYTHON = (3, 10)
CORE = (
    *("numpy", "tyro", "rich", "pyyaml", "msgspec"),
    *("safetensors", "tokenizers", "pillow", "onnxruntime"),
)
EXTRAS = {
    "torch": ("torch",),
    "sim": ("mujoco", "robosuite", "scipy", "trimesh", "fast-simplification", "av"),
    "viz": ("rerun-sdk",),
    "trt-rtx": ("tensorrt-rtx-cu12-bindings", "tensorrt-rtx-cu12-libs"),
}
_LEAST_FREE_GB = 2.0
_LEAST_MEMORY_GB = 3.0

Status = Literal["ok", "note", "fail"]
_MARKS: dict[Status, str] = {
    "ok": "[green]ok  [/]",
    "note": "[yellow]note[/]",
    "fail": "[red]fail[/]",
}


@dataclass(frozen=True)
class Doctor:
    """Check this machine; the exit code is 1 when a check fails.

    Attributes:
        json: machine-readable output instead of a list.
    """

    json: bool = False


@dataclass(frozen=True)
class Check:
    """One finding. A `note` is something to know; only a `fail` stands in the way.

    Attributes:
        name: what was looked at.
        status: `ok`, `note` or `fail`.
        detail: what was found.
        remedy: what to do; empty when there is nothing to do.
    """

    name: str
    status: Status
    detail: str
    remedy: str = ""


def run(config: Doctor) -> int:
    """Print every finding; returns the exit code."""
    checks = list(examine())
    failed = sum(check.status == "fail" for check in checks)
    if config.json:
        listed = [asdict(check) for check in checks]
        print(json.dumps({"schema": SCHEMA, "ok": not failed, "checks": listed}, indent=2))
    else:
        _print_list(checks, failed)
    return 1 if failed else 0


def examine() -> Iterator[Check]:
    """Every finding, in reading order. A check that breaks is itself a finding."""
    for name, look in CHECKS.items():
        try:
            yield from look()
        except Exception as error:
            yield _broken(name, error)


def _broken(name: str, error: Exception) -> Check:
    known = explain(error)
    if known is not None:
        return Check(name, "fail", known[1], "do what the message says, then check again")
    detail = f"the check itself broke: {type(error).__name__}: {error}"
    return Check(name, "fail", detail, "reinstall leanvla; if that does not help, report this line")


def check_python() -> Iterator[Check]:
    """The interpreter's version."""
    found = ".".join(str(part) for part in sys.version_info[:3])
    if sys.version_info[:2] >= OLDEST_PYTHON:
        yield Check("python", "ok", f"{found} at {sys.executable}")
    else:
        yield Check("python", "fail", found, "install Python 3.10 or newer, best 3.11")


def check_packages() -> Iterator[Check]:
    """Core packages and extras, with their versions."""
    missing = [name for name in CORE if version_of(name) is None]
    if missing:
        yield Check(
            "packages", "fail", f"missing: {', '.join(missing)}", "run `pip install leanvla`"
        )
    else:
        yield Check("packages", "ok", ", ".join(f"{name} {version_of(name)}" for name in CORE))
    for extra, names in EXTRAS.items():
        yield _check_extra(extra, names)


def _check_extra(extra: str, names: tuple[str, ...]) -> Check:
    missing = [name for name in names if version_of(name) is None]
    if not missing:
        return Check(f"extra {extra}", "ok", ", ".join(f"{n} {version_of(n)}" for n in names))
    # A robot needs no simulator and a simulator no viewer: a whole extra may well be absent.
    status: Status = "note" if len(missing) == len(names) else "fail"
    remedy = f"run `pip install 'leanvla[{extra}]'` if you need it"
    return Check(f"extra {extra}", status, f"missing: {', '.join(missing)}", remedy)


def check_torch() -> Iterator[Check]:
    """Which torch build, and whether it sees a GPU."""
    if importlib.util.find_spec("torch") is None:
        yield Check("torch", "note", "absent: only exported engines can run")
        return
    import torch

    if torch.cuda.is_available():
        yield Check("torch", "ok", f"{torch.__version__}, {torch.cuda.get_device_name(0)}")
    elif torch.version.cuda and Path("/proc/driver/nvidia").exists():
        remedy = (
            f"match the driver to CUDA {torch.version.cuda} (see nvidia-smi), or the torch build"
        )
        yield Check("torch", "fail", f"{torch.__version__} sees no GPU though one is here", remedy)
    else:
        yield Check("torch", "ok", f"{torch.__version__}, on the processor")


def check_onnxruntime() -> Iterator[Check]:
    """The execution providers of ONNX Runtime."""
    if importlib.util.find_spec("onnxruntime") is None:
        return  # Already said among the packages.
    import onnxruntime

    yield Check("onnxruntime", "ok", ", ".join(onnxruntime.get_available_providers()))


def check_tensorrt() -> Iterator[Check]:
    """Which TensorRT is here, and whether what it builds can also run."""
    from engines.tensorrt.library import MODULES, find_library, installed
    from engines.tensorrt.session import NOT_EXECUTED

    here = [name for name in MODULES if installed(name)]
    if not here:
        yield Check("tensorrt", "note", "absent: engines run on ONNX Runtime or torch")
    for name in here:
        library = find_library(name)
        runs = library.driver and importlib.util.find_spec("cuda") is not None
        if runs:
            yield Check("tensorrt", "ok", f"{library}, with a CUDA driver")
        elif library.driver:
            remedy = "run `pip install cuda-python` in the CUDA version of the device"
            yield Check("tensorrt", "note", f"{library}: plans cannot run, no cuda-python", remedy)
        else:
            yield Check("tensorrt", "note", f"{library}: {NOT_EXECUTED}")


def check_gl() -> Iterator[Check]:
    """Render one frame, in a subprocess."""
    if importlib.util.find_spec("mujoco") is None:
        remedy = "run `pip install 'leanvla[sim]'` if you need simulation"
        yield Check("gl", "note", "not tried: mujoco is missing", remedy)
        return
    from sim.render import check_gl as render_one_frame

    report = render_one_frame()
    if report.ok:
        yield Check("gl", "ok", f"{report.backend}: {report.renderer}")
    else:
        yield Check("gl", "fail", report.problem, report.remedy)


def check_libero() -> Iterator[Check]:
    """LIBERO's environment and assets; both may well be absent."""
    from sim.suites.environment import environments
    from sim.suites.libero.assets import REMEDY, AssetsError, assets_hash, find_assets

    environment = environments()["libero"]
    if not environment.installed:
        remedy = "run `leanvla suites install libero` if you need it"
        yield Check("libero", "note", "its environment is not installed", remedy)
        return
    yield Check("libero", "ok", str(environment.folder))
    try:
        assets = find_assets()
    except AssetsError as error:
        yield Check("libero assets", "fail", str(error), REMEDY)
        return
    yield Check("libero assets", "ok", f"{assets}, {assets_hash(assets)[:12]}")


def check_metaworld() -> Iterator[Check]:
    """Meta-World's environment, which may well be absent."""
    from sim.suites.environment import environments

    environment = environments()["metaworld"]
    if environment.installed:
        yield Check("metaworld", "ok", str(environment.folder))
    else:
        remedy = "run `leanvla suites install metaworld` if you need it"
        yield Check("metaworld", "note", "its environment is not installed", remedy)


def check_weights() -> Iterator[Check]:
    """The shipped policies against their `SHA256` files (`<hex>  <file>` per line)."""
    for folder in sorted(path for path in ZOO.iterdir() if path.is_dir()):
        name, ledger = f"weights {folder.name}", folder / "SHA256"
        if not ledger.is_file():
            yield Check(name, "note", f"{folder} has no SHA256 file: nothing to compare with")
            continue
        wrong = [file for file, digest in _ledger(ledger) if _sha256(folder / file) != digest]
        if wrong:
            remedy = f"restore the folder: `git checkout -- {folder}`, or reinstall leanvla"
            yield Check(name, "fail", f"damaged or missing: {', '.join(wrong)}", remedy)
        else:
            yield Check(name, "ok", "every file matches its hash")


def check_engines() -> Iterator[Check]:
    """Graphs that ship beside policies, and engines that were made on this machine."""
    from engines.cache import kept_engines
    from engines.errors import EngineError
    from policy.openvla.engine.packaged import FOLDER, packaged_graphs
    from policy.openvla.engine.rungs import listed

    for folder in sorted(path.parent for path in ZOO.glob(f"*/{FOLDER}")):
        name = f"graphs {folder.name}"
        try:
            graphs = packaged_graphs(folder)
        except EngineError as error:
            yield Check(name, "fail", str(error), "make them again: `make graphs`")
            continue
        if graphs is not None:
            yield Check(name, "ok", f"run without torch: {listed(graphs)}")
    for folder, manifest, size in kept_engines():
        detail = f"{folder}, {size / 1e6:.1f} MB"
        if manifest is None:
            remedy = f"nothing; it is made again when needed, or remove it: `rm -r {folder}`"
            yield Check("engine", "note", f"{detail}, damaged", remedy)
        else:
            compared = "compared with its model" if manifest.parity else "not compared here"
            yield Check("engine", "ok", f"{detail}: {listed(manifest)}; {compared}")


def _ledger(path: Path) -> Iterator[tuple[str, str]]:
    for line in path.read_text(encoding="utf-8").splitlines():
        digest, _, file = line.partition(" ")
        if digest:
            yield file.strip().lstrip("*"), digest.lower()


def _sha256(path: Path) -> str | None:
    if not path.is_file():
        return None
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def check_disk() -> Iterator[Check]:
    """Free space where results go."""
    free = shutil.disk_usage(Path.cwd()).free / 1e9
    detail = f"{free:.1f} GB free in {Path.cwd()}"
    if free >= _LEAST_FREE_GB:
        yield Check("disk", "ok", detail)
    else:
        remedy = f"free at least {_LEAST_FREE_GB:.0f} GB, or write elsewhere with `--out`"
        yield Check("disk", "fail", detail, remedy)


def check_memory() -> Iterator[Check]:
    """Memory that a run can still take."""
    lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
    sizes = {key: value.split()[0] for key, _, value in (line.partition(":") for line in lines)}
    available = int(sizes["MemAvailable"]) * 1024 / 1e9
    detail = f"{available:.1f} GB available"
    if available >= _LEAST_MEMORY_GB:
        yield Check("memory", "ok", detail)
    else:
        yield Check(
            "memory", "note", detail, "close other programs, or roll out with `--workers 1`"
        )


def check_threads() -> Iterator[Check]:
    """Threads of the numeric libraries against the cores this process may use."""
    cores, asked = usable_cores(), os.environ.get("OMP_NUM_THREADS")
    detail = f"{cores} core(s), OMP_NUM_THREADS {asked or 'unset'}"
    if asked is None:
        yield Check("threads", "ok", detail)
    elif not asked.isdigit() or int(asked) < 1:
        yield Check("threads", "fail", detail, f"set OMP_NUM_THREADS to 1..{cores}, or unset it")
    elif int(asked) > cores:
        remedy = f"set OMP_NUM_THREADS to at most {cores}: more threads than cores slow each other"
        yield Check("threads", "fail", detail, remedy)
    else:
        yield Check("threads", "ok", detail)


CHECKS: dict[str, Callable[[], Iterator[Check]]] = {
    "python": check_python,
    "packages": check_packages,
    "torch": check_torch,
    "onnxruntime": check_onnxruntime,
    "tensorrt": check_tensorrt,
    "gl": check_gl,
    "libero": check_libero,
    "metaworld": check_metaworld,
    "weights": check_weights,
    "engines": check_engines,
    "disk": check_disk,
    "memory": check_memory,
    "threads": check_threads,
}


def _print_list(checks: list[Check], failed: int) -> None:
    from rich.console import Console
    from rich.markup import escape

    console = Console(soft_wrap=True)
    for check in checks:
        console.print(
            f"{_MARKS[check.status]} {check.name:<12} {escape(check.detail)}", highlight=False
        )
        if check.remedy:
            console.print(f"     {'':<12} → {escape(check.remedy)}", highlight=False)
    console.print(f"{failed} check(s) failed" if failed else "all checks passed", highlight=False)
