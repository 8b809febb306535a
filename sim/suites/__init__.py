"""Suites by name. A suite's simulator is imported only when that suite is made."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from pruning.spelling import did_you_mean
from sim.suites.look import Look, Traits, always, never

if TYPE_CHECKING:
    from collections.abc import Callable

    from sim.suites.base import SuiteSpec, TrainingSuite


class Entry(NamedTuple):
    """How a suite is described, by render profile; made; and what it can do."""

    spec: Callable[[str | None], SuiteSpec]
    make: Callable[[Look], TrainingSuite]
    traits: Traits


_SEEN = frozenset(("camera", "lighting", "paraphrase"))
_MOVED = _SEEN | {"pose"}


def _tabletop_spec(render_profile: str | None) -> SuiteSpec:
    from sim.suites.tabletop.spec import tabletop_spec

    return tabletop_spec(render_profile)


def _tabletop(look: Look) -> TrainingSuite:
    from sim.render import setup_gl

    setup_gl()
    from sim.suites.dress import dress
    from sim.suites.tabletop.suite import Tabletop

    suite = Tabletop(look.render_profile, look.view_size or 96)
    return dress(suite, look.views, look.perturb)


def _robosuite_spec(render_profile: str | None, *, suite: str) -> SuiteSpec:
    from sim.suites.robosuite.spec import robosuite_spec

    return robosuite_spec(suite, render_profile)


def _robosuite(look: Look, *, suite: str) -> TrainingSuite:
    from sim.render import setup_gl

    setup_gl()
    from sim.suites.dress import dress
    from sim.suites.robosuite.suite import VIEW_SIZE, Robosuite

    made = Robosuite(suite, look.render_profile, look.view_size or VIEW_SIZE)
    return dress(made, look.views, look.perturb)


def _libero_spec(render_profile: str | None, *, suite: str) -> SuiteSpec:
    from sim.suites.libero.spec import libero_spec

    return libero_spec(suite, render_profile)


def _libero(look: Look, *, suite: str) -> TrainingSuite:
    from sim.render import setup_gl

    setup_gl()
    from sim.suites.libero.make import make_libero

    return make_libero(suite, look)


def _metaworld_spec(render_profile: str | None, *, suite: str) -> SuiteSpec:
    from sim.suites.metaworld.spec import metaworld_spec

    return metaworld_spec(suite, render_profile)


def _metaworld(look: Look, *, suite: str) -> TrainingSuite:
    from sim.render import setup_gl

    setup_gl()
    from sim.suites.metaworld.make import make_metaworld

    return make_metaworld(suite, look)


def _shared_scene_of_libero_10(seed: int) -> bool:
    """Of its ten tasks the first two alone share a scene."""
    return seed % 10 < 2


LIBERO = tuple(f"libero_{part}" for part in ("spatial", "object", "goal", "10", "90"))
_LIBERO_SWAPS: dict[str, Callable[[int], bool]] = {
    "libero_spatial": never,
    "libero_10": _shared_scene_of_libero_10,
}
_ROBOSUITE = {
    "robosuite": Traits(False, never, _MOVED),
    "robosuite_lift": Traits(True, never, _MOVED),
    "robosuite_stack": Traits(True, always, _MOVED),
    "robosuite_pick_place": Traits(True, always, _MOVED),
    "robosuite_nut_assembly": Traits(True, always, _MOVED),
    "robosuite_door": Traits(False, never, _MOVED),
    "robosuite_wipe": Traits(False, never, _MOVED),
}
METAWORLD = ("metaworld_mt10", "metaworld_mt50")
SUITES: dict[str, Entry] = {
    "tabletop": Entry(_tabletop_spec, _tabletop, Traits(True, always, _MOVED | {"distractors"})),
    **{
        name: Entry(partial(_robosuite_spec, suite=name), partial(_robosuite, suite=name), traits)
        for name, traits in _ROBOSUITE.items()
    },
    **{
        name: Entry(
            partial(_libero_spec, suite=name),
            partial(_libero, suite=name),
            Traits(name == "libero_object", _LIBERO_SWAPS.get(name, always), _MOVED),
        )
        for name in LIBERO
    },
    **{
        name: Entry(
            partial(_metaworld_spec, suite=name),
            partial(_metaworld, suite=name),
            Traits(True, never, _SEEN),
        )
        for name in METAWORLD
    },
}


def make_suite(
    name: str,
    *,
    render_profile: str | None = None,
    view_size: int | None = None,
    views: tuple[str, ...] | None = None,
    perturb: str = "",
) -> TrainingSuite:
    """Build the suite called `name` in this process.

    Args:
        name: a key of `SUITES`.
        render_profile: `default`, `fast` or `lowpoly`; None takes the suite's own.
        view_size: side of the square frames of an observation, px; None takes the suite's own.
        views: cameras to show, main first; None shows all.
        perturb: perturbations, e.g. `camera:0.05,lighting:0.3`.

    Raises:
        ValueError: on an unknown suite, render profile, view or perturbation; the message lists
            the valid names.
    """
    from sim.suites.perturb.kinds import check_supported, parse_perturb

    entry, sizes = _entry(name), parse_perturb(perturb)
    check_supported(name, sizes, entry.traits.perturb)
    return entry.make(Look(render_profile, view_size, views, sizes))


def suite_spec(
    name: str, *, render_profile: str | None = None, views: tuple[str, ...] | None = None
) -> SuiteSpec:
    """The spec that the suite called `name` will have, without starting its simulator.

    Raises:
        ValueError: on an unknown suite, render profile or view; it lists the valid names.
    """
    from sim.suites.dress import with_views

    return with_views(_entry(name).spec(render_profile), views)


def traits_of(name: str) -> Traits:
    """What the suite called `name` can do.

    Raises:
        ValueError: on an unknown suite; the message lists the valid names.
    """
    return _entry(name).traits


def unknown_suite(name: str) -> ValueError:
    """The error for a name that no suite has."""
    hint = did_you_mean(name, SUITES, ", ") or ":"
    return ValueError(f"unknown suite {name!r}{hint} choose one of {', '.join(SUITES)}")


def _entry(name: str) -> Entry:
    if name not in SUITES:
        raise unknown_suite(name)
    return SUITES[name]
