"""`leanvla suites`: the suites, and the environments that some of them need."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from leanvla.errors import UsageError

if TYPE_CHECKING:
    from sim.suites.environment import Environment


@dataclass(frozen=True)
class Suites:
    """List the suites, or make the environment of one.

    Attributes:
        action: `list` all suites; `install` an environment; print the `path` of one.
        name: the environment, for `install` and `path`.
    """

    action: Annotated[Literal["list", "install", "path"], tyro.conf.Positional]
    name: Annotated[str, tyro.conf.Positional] = field(default="")


def run(config: Suites) -> int:
    """Do it; returns the exit code.

    Raises:
        UsageError: for an unknown environment.
        SuiteEnvironmentError: when it cannot be made.
    """
    if config.action == "list":
        _list()
        return 0
    environment = _find(config.name)
    print(environment.install() if config.action == "install" else environment.folder)
    return 0


def _list() -> None:
    from sim.suites import SUITES, suite_spec
    from sim.suites.environment import environments

    known = environments()
    width = max(map(len, SUITES))
    for name in SUITES:
        needs = known.get(name.partition("_")[0])
        state = "ready" if needs is None or needs.installed else "not installed"
        hint = "" if state == "ready" or needs is None else f": leanvla suites install {needs.name}"
        print(f"{name:<{width}} {suite_spec(name).max_steps:>4} steps  {state}{hint}")


def _find(name: str) -> Environment:
    from sim.suites.environment import environments

    known = environments()
    if name not in known:
        given = f"unknown environment {name!r}" if name else "no environment is named"
        raise UsageError(f"{given}: choose one of {', '.join(known)}")
    return known[name]
