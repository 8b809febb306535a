"""Interpreters of suites whose packages cannot live beside ours.

An environment is a folder in the cache, named by the lock file it was made from: another lock gives
another folder, and one that was interrupted lacks its stamp and is made anew.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from pruning.user_cache import cache_dir

_STAMP = "ready"


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
    """

    name: str
    lock: Path
    prepare: str | None = None

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
            from sim.suites.remote.suite import LAUNCH, ROOT

            _run([python, "-I", str(LAUNCH), str(ROOT), self.prepare, str(folder)], "prepare it")
        with tempfile.NamedTemporaryFile("w", dir=folder, delete=False) as file:
            file.write(self.lock.read_text())
        Path(file.name).replace(folder / _STAMP)
        return folder


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
        "libero", here / "libero" / "requirements.txt", "sim.suites.libero.convert"
    )
    metaworld = Environment("metaworld", here / "metaworld" / "requirements.txt")
    return {environment.name: environment for environment in (libero, metaworld)}
