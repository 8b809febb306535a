"""A LIBERO suite from our side: a worker in LIBERO's own environment."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from sim.suites.dress import with_views
from sim.suites.environment import environments
from sim.suites.libero.assets import find_assets
from sim.suites.libero.spec import VIEW_SIZE, libero_spec
from sim.suites.remote.suite import RemoteSuite

if TYPE_CHECKING:
    from sim.suites.base import TrainingSuite
    from sim.suites.look import Look


def check_ready() -> None:
    """Find out at once what a worker would find out after it started.

    Raises:
        SuiteEnvironmentError: when the environment is not installed.
        AssetsError: when the assets are not found.
    """
    environments()["libero"].python()
    find_assets()


def make_libero(suite: str, look: Look) -> TrainingSuite:
    """The suite, in a worker.

    Args:
        suite: its name.
        look: render profile (`default` when left out), size of frames (256 px), views.

    Raises:
        ValueError: on an unknown render profile or view.
        SuiteEnvironmentError: when its environment is not installed.
        AssetsError: when its assets are not found.
        RemoteSuiteError: when its worker cannot stand.
    """
    spec = with_views(libero_spec(suite, look.render_profile), look.views)
    environment = environments()["libero"]
    python, folder, assets = environment.python(), environment.folder, find_assets()
    options = {
        "suite": suite,
        "render_profile": spec.render_profile,
        "view_size": look.view_size or VIEW_SIZE,
        "assets": str(assets),
        "folder": str(folder),
        "views": look.views,
        "perturb": look.perturb,
    }
    config = {
        "LIBERO_CONFIG_PATH": str(folder / "config"),
        "NUMBA_CACHE_DIR": str(folder / "numba"),
        "MUJOCO_GL": os.environ.get("MUJOCO_GL", "egl"),
    }
    return RemoteSuite(spec, python, "sim.suites.libero.suite:make", options, environment=config)
