"""Interpreters of suites whose packages cannot live beside ours.

An environment is a folder in the cache, named by the lock file it was made from: another lock gives
another folder, and one that was interrupted lacks its stamp and is made anew.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from pruning.user_cache import cache_dir

_STAMP = "ready"
_NUMBERS = ("numpy", "scipy")
_MESHES = ("trimesh", "fast-simplification")


class SuiteEnvironmentError(RuntimeError):
    """An environment that is missing or cannot be made; the message names the remedy."""


@dataclass(frozen=True)
class Environment:
    """One environment.

    Attributes:
        name: name on the command line.
        lock: pinned requirements, complete: they are installed without their dependencies.
        prepare: module that is run in the new environment with its folder as argument; None for
            none.
        telling: packages of it that an episode depends on.
    """

    name: str
    lock: Path
    prepare: str | None = None
    telling: tuple[str, ...] = ()

    @property
    def folder(self) -> Path:
        """Where it is, or would be."""
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        digest = hashlib.sha256(f"{version}:{self.lock.read_text()}".encode()).hexdigest()[:12]
        return cache_dir() / "suites" / f"{self.name}-{digest}"

    @property
    def installed(self) -> bool:
        """Whether it is complete."""
        return (self.folder / _STAMP).is_file()

    def python(self) -> Path:
        """Its interpreter.

        Raises:
            SuiteEnvironmentError: when it is not installed.
        """
        if not self.installed:
            raise SuiteEnvironmentError(
                f"the packages of {self.name} are not installed: run `leanvla suites install "
                f"{self.name}`"
            )
        return self.folder / "bin" / "python"

    def packages(self) -> dict[str, str]:
        """Versions of the `telling` packages, as its own interpreter finds them.

        Raises:
            SuiteEnvironmentError: when it is not installed, or its interpreter does not answer.
        """
        python = str(self.python())
        command = [*_launch(python), "sim.suites.remote.versions", ",".join(self.telling)]
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=False
        )
        if done.returncode:
            raise SuiteEnvironmentError(
                f"{python} does not tell its packages, it ended with {done.returncode}: "
                f"remove {self.folder} and run `leanvla suites install {self.name}`"
            )
        return json.loads(done.stdout)

    def install(self) -> Path:
        """Make it, unless it is there; returns its folder.

        Raises:
            SuiteEnvironmentError: when a step fails; its output went to stderr.
        """
        folder = self.folder
        if self.installed:
            return folder
        folder.parent.mkdir(parents=True, exist_ok=True)
        python = str(folder / "bin" / "python")
        _run([sys.executable, "-m", "venv", "--clear", str(folder)], "make the environment")
        pip = [python, "-m", "pip", "install", "--disable-pip-version-check", "--quiet"]
        _run([*pip, "--no-deps", "--requirement", str(self.lock)], "install its packages")
        if self.prepare is not None:
            _run([*_launch(python), self.prepare, str(folder)], "prepare it")
        with tempfile.NamedTemporaryFile("w", dir=folder, delete=False) as file:
            file.write(self.lock.read_text())
        Path(file.name).replace(folder / _STAMP)
        return folder


def _launch(python: str) -> list[str]:
    """The command that runs a module of ours in another interpreter."""
    from sim.suites.remote.suite import LAUNCH, ROOT

    return [python, "-I", str(LAUNCH), str(ROOT)]


def _run(command: list[str], purpose: str) -> None:
    code = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=2, check=False).returncode
    if code:
        raise SuiteEnvironmentError(
            f"could not {purpose}: `{' '.join(command)}` ended with {code}; see its output above"
        )


def environments() -> dict[str, Environment]:
    """The environments by name."""
    here = Path(__file__).parent
    libero = Environment(
        "libero",
        here / "libero" / "requirements.txt",
        "sim.suites.libero.convert",
        telling=("mujoco", "robosuite", "hf-libero", "bddl", "numba", *_MESHES, *_NUMBERS),
    )
    metaworld = Environment(
        "metaworld",
        here / "metaworld" / "requirements.txt",
        telling=("mujoco", "metaworld", "gymnasium", *_NUMBERS),
    )
    return {environment.name: environment for environment in (libero, metaworld)}


def environment_of(suite: str) -> Environment | None:
    """The environment that a suite runs in; None for one that runs on our packages."""
    return None if ":" in suite else environments().get(suite.partition("_")[0])
