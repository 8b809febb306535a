"""A Meta-World suite from our side: a worker in an environment of its own."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from sim.suites.dress import with_views
from sim.suites.environment import environments
from sim.suites.metaworld.spec import VIEW_SIZE, metaworld_spec
from sim.suites.remote.suite import RemoteSuite

if TYPE_CHECKING:
    from sim.suites.base import TrainingSuite
    from sim.suites.look import Look


def make_metaworld(suite: str, look: Look) -> TrainingSuite:
    """The suite, in a worker.

    Args:
        suite: its name.
        look: render profile (`fast` when left out), size of frames (96 px), views.

    Raises:
        ValueError: on an unknown render profile or view.
        SuiteEnvironmentError: when its environment is not installed.
        RemoteSuiteError: when its worker cannot stand.
    """
    spec = with_views(metaworld_spec(suite, look.render_profile), look.views)
    options = {
        "suite": suite,
        "render_profile": spec.render_profile,
        "view_size": look.view_size or VIEW_SIZE,
        "views": look.views,
        "perturb": look.perturb,
    }
    config = {"MUJOCO_GL": os.environ.get("MUJOCO_GL", "egl")}
    python = environments()["metaworld"].python()
    factory = "sim.suites.metaworld.suite:make"
    return RemoteSuite(spec, python, factory, options, environment=config)
