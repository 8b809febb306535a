"""The folder that every verb with results writes: what was asked, on what machine, what came out.

`config.yaml` holds the resolved configuration, `env.json` the machine; both are written before any
work is done, so that even an interrupted run tells what it was.
"""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import subprocess
import tempfile
from enum import Enum
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from leanvla.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Collection

PACKAGES = (
    "leanvla",
    "numpy",
    "onnxruntime",
    "torch",
    "tokenizers",
    "safetensors",
    "mujoco",
    "robosuite",
    "numba",
    "scipy",
    "av",
)
# How a run is carried out, not what it measures: these may differ when it is resumed.
IGNORED = frozenset({"out", "resume", "workers"})
_WRITTEN_FIRST = {"config.yaml", "env.json"}


def open_run_folder(
    out: Path, config: object, *, resume: bool, ignore: Collection[str] = IGNORED
) -> Path:
    """Create `out`, or go on in it, and write `config.yaml` and `env.json`.

    A run that ended before its first result, with nothing but logs, leaves its folder free.

    Args:
        out: the folder.
        config: the resolved configuration: a dataclass, or a mapping of plain values.
        resume: go on in a folder that holds results of the same configuration.
        ignore: top-level fields that may differ on resume.

    Raises:
        UsageError: when the folder holds something else, another configuration, or results that
            nobody asked to continue.
    """
    check_run_folder(out, config, resume=resume, ignore=ignore)
    plain = to_plain(config)
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / "config.yaml", yaml.safe_dump(plain, sort_keys=False, allow_unicode=True))
    write_json(out / "env.json", environment())
    return out


def check_run_folder(
    out: Path, config: object, *, resume: bool, ignore: Collection[str] = IGNORED
) -> None:
    """Refuse what `open_run_folder` refuses, and write nothing.

    Raises:
        UsageError: as `open_run_folder`.
    """
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} is a file: choose another folder with `--out NEW`")
    if out.is_dir() and not _is_free(out):
        _check_same(out, to_plain(config), resume=resume, ignore=ignore)


def write_json(path: Path, value: object) -> None:
    """Write JSON atomically: a reader sees the old file or the new one, never half of one."""
    text = json.dumps(to_plain(value), indent=2, ensure_ascii=False, allow_nan=False)
    write_text(path, text + "\n")


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def to_plain(value: object) -> Any:
    """Dataclasses, enums, paths, tuples and numpy scalars as what YAML and JSON know."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Enum):
        return to_plain(value.value)
    if isinstance(value, dict):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_plain(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return sorted(to_plain(item) for item in value)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    tolist = getattr(value, "tolist", None)
    return tolist() if callable(tolist) else value


def environment() -> dict[str, Any]:
    """This machine, as results need it: Python, processor, cores, threads, packages, commit."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu_model": cpu_model(),
        "cores": usable_cores(),
        "threads": {name: os.environ.get(name) for name in ("OMP_NUM_THREADS", "LP_NUM_THREADS")},
        "mujoco_gl": os.environ.get("MUJOCO_GL"),
        "packages": {name: found for name in PACKAGES if (found := version_of(name))},
        "git_commit": _git_commit(),
    }


def version_of(package: str) -> str | None:
    """The installed version of a distribution, or None."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def usable_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu_model() -> str:
    """The processor's name, as the kernel gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())


def _git_commit() -> str | None:
    """The commit of the checkout that runs, with `+changes` when files differ from it."""
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None
    git = ["git", "-C", str(root), "describe", "--always", "--abbrev=40", "--dirty=+changes"]
    try:
        done = subprocess.run(git, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None


def _is_free(out: Path) -> bool:
    """Whether a folder holds no results: nothing, or a run of ours that left nothing but logs."""
    held = {path.name for path in out.iterdir()}
    more = held - _WRITTEN_FIRST
    return not more or (held >= _WRITTEN_FIRST and all(name.endswith(".log") for name in more))


def _check_same(out: Path, plain: Any, *, resume: bool, ignore: Collection[str]) -> None:
    path = out / "config.yaml"
    if not path.is_file():
        raise UsageError(f"{out} holds files of something else: choose another with `--out NEW`")
    try:
        before = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError):
        raise UsageError(f"{path} cannot be read: choose another with `--out NEW`") from None
    different = _differences(before, plain, ignore)
    if different:
        raise UsageError(
            f"{out} holds a run of another configuration ({'; '.join(different)}): "
            "choose another folder with `--out NEW`"
        )
    if not resume:
        raise UsageError(
            f"{out} already holds this run: go on with `--resume`, or choose `--out NEW`"
        )


def _differences(before: Any, now: Any, ignore: Collection[str]) -> list[str]:
    if not isinstance(before, dict) or not isinstance(now, dict):
        return [] if before == now else ["config.yaml"]
    names = [name for name in {**before, **now} if name not in ignore]
    return [
        f"{name} was {before.get(name)!r}, is {now.get(name)!r}"
        for name in names
        if before.get(name) != now.get(name)
    ]
