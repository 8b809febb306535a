"""`leanvla suites`: the suites, and the environments that some of them need."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from leanvla.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from sim.suites.environment import Environment


@dataclass(frozen=True)
class Suites:
    """List the suites, or make the environment of one.

    Attributes:
        action: `list` all suites; `install` an environment; print the `path` of one; print where
            its `assets` are, that no package brings.
        name: the environment, for all but `list`.
    """

    action: Annotated[Literal["list", "install", "path", "assets"], tyro.conf.Positional]
    name: Annotated[str, tyro.conf.Positional] = field(default="")


def run(config: Suites) -> int:
    """Do it; returns the exit code.

    Raises:
        UsageError: for an unknown environment, or assets of one that needs none.
        SuiteEnvironmentError: when it cannot be made.
        AssetsError: when its assets are not found.
    """
    if config.action == "list":
        _list()
        return 0
    environment = _find(config.name)
    if config.action == "assets":
        print(_assets(environment))
        return 0
    print(environment.install() if config.action == "install" else environment.folder)
    return 0


def _list() -> None:
    from sim.suites import SUITES, suite_spec
    from sim.suites.environment import environment_of

    width = max(map(len, SUITES))
    for name in SUITES:
        needs = environment_of(name)
        state = "ready" if needs is None or needs.installed else "not installed"
        hint = "" if state == "ready" or needs is None else f": leanvla suites install {needs.name}"
        print(f"{name:<{width}} {suite_spec(name).max_steps:>4} steps  {state}{hint}")


def _assets(environment: Environment) -> Path:
    if environment.name != "libero":
        raise UsageError(f"{environment.name} brings its assets along: libero alone needs a folder")
    from sim.suites.libero.assets import find_assets

    return find_assets()


def _find(name: str) -> Environment:
    from sim.suites.environment import environments

    known = environments()
    if name not in known:
        given = f"unknown environment {name!r}" if name else "no environment is named"
        raise UsageError(f"{given}: choose one of {', '.join(known)}")
    return known[name]
