"""Suites by name. A suite's simulator is imported only when that suite is made."""

from __future__ import annotations

import difflib
import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from sim.suites.base import Suite


def _tabletop(render_profile: str | None, view_size: int) -> Suite:
    from sim.render import setup_gl

    setup_gl()
    # robosuite greets every import with advice on optional parts; only its errors are of use here.
    logging.getLogger("robosuite_logs").addFilter(lambda record: record.levelno >= logging.ERROR)
    from sim.suites.tabletop.suite import Tabletop

    return Tabletop(render_profile, view_size)


SUITES: dict[str, Callable[[str | None, int], Suite]] = {"tabletop": _tabletop}


def make_suite(name: str, *, render_profile: str | None = None, view_size: int = 96) -> Suite:
    """Build the suite called `name` in this process.

    Args:
        name: a key of `SUITES`.
        render_profile: `default`, `fast` or `lowpoly`; None takes the suite's own.
        view_size: side of the square frames of an observation, px.

    Raises:
        ValueError: on an unknown suite or render profile; the message lists the valid names.
    """
    if name not in SUITES:
        raise unknown_suite(name)
    return SUITES[name](render_profile, view_size)


def unknown_suite(name: str) -> ValueError:
    """The error for a name that no suite has."""
    near = difflib.get_close_matches(name, SUITES, n=1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    return ValueError(f"unknown suite {name!r}{hint}: choose one of {', '.join(SUITES)}")
