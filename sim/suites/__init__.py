"""Suites by name. A suite's simulator is imported only when that suite is made."""

from __future__ import annotations

import difflib
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    from sim.suites.base import SuiteSpec, TrainingSuite


class Entry(NamedTuple):
    """How a suite is described, by render profile, and made, by render profile and view size."""

    spec: Callable[[str | None], SuiteSpec]
    make: Callable[[str | None, int | None], TrainingSuite]


def _tabletop_spec(render_profile: str | None) -> SuiteSpec:
    from sim.suites.tabletop.spec import tabletop_spec

    return tabletop_spec(render_profile)


def _tabletop(render_profile: str | None, view_size: int | None) -> TrainingSuite:
    from sim.render import setup_gl

    setup_gl()
    from sim.suites.tabletop.suite import Tabletop

    return Tabletop(render_profile, view_size or 96)


def _libero_spec(render_profile: str | None, *, suite: str) -> SuiteSpec:
    from sim.suites.libero.spec import libero_spec

    return libero_spec(suite, render_profile)


def _libero(render_profile: str | None, view_size: int | None, *, suite: str) -> TrainingSuite:
    from sim.render import setup_gl

    setup_gl()
    from sim.suites.libero.make import make_libero

    return make_libero(suite, render_profile, view_size)


LIBERO = tuple(f"libero_{part}" for part in ("spatial", "object", "goal", "10", "90"))
SUITES: dict[str, Entry] = {"tabletop": Entry(_tabletop_spec, _tabletop)} | {
    name: Entry(partial(_libero_spec, suite=name), partial(_libero, suite=name)) for name in LIBERO
}


def make_suite(
    name: str, *, render_profile: str | None = None, view_size: int | None = None
) -> TrainingSuite:
    """Build the suite called `name` in this process.

    Args:
        name: a key of `SUITES`.
        render_profile: `default`, `fast` or `lowpoly`; None takes the suite's own.
        view_size: side of the square frames of an observation, px; None takes the suite's own.

    Raises:
        ValueError: on an unknown suite or render profile; the message lists the valid names.
    """
    return _entry(name).make(render_profile, view_size)


def suite_spec(name: str, *, render_profile: str | None = None) -> SuiteSpec:
    """The spec that the suite called `name` will have, without starting its simulator.

    Raises:
        ValueError: on an unknown suite or render profile; the message lists the valid names.
    """
    return _entry(name).spec(render_profile)


def unknown_suite(name: str) -> ValueError:
    """The error for a name that no suite has."""
    near = difflib.get_close_matches(name, SUITES, n=1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    return ValueError(f"unknown suite {name!r}{hint}: choose one of {', '.join(SUITES)}")


def _entry(name: str) -> Entry:
    if name not in SUITES:
        raise unknown_suite(name)
    return SUITES[name]
