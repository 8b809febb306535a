"""Fewer cameras and perturbations: what any suite can be made to show, where it runs."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sim.suites.base import SuiteSpec, TrainingSuite


def with_views(spec: SuiteSpec, views: tuple[str, ...] | None) -> SuiteSpec:
    """The spec with some of its cameras, in the order given; None keeps all.

    Raises:
        ValueError: for a camera that the suite does not have; it lists those that it has.
    """
    if views is None:
        return spec
    missing = [view for view in views if view not in spec.observation.views]
    if missing or not views or len(set(views)) != len(views):
        shown = ", ".join(spec.observation.views)
        raise ValueError(f"suite {spec.name} shows {shown}: choose some of them, each once")
    seen = dataclasses.replace(spec.observation, views=tuple(views))
    return dataclasses.replace(spec, observation=seen)


def dress(
    suite: TrainingSuite, views: tuple[str, ...] | None, perturb: Mapping[str, float]
) -> TrainingSuite:
    """The suite with some of its cameras, perturbed."""
    suite.spec = with_views(suite.spec, views)
    if not perturb:
        return suite
    from sim.suites.perturb.suite import Perturbed

    return Perturbed(suite, perturb)
