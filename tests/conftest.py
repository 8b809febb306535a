"""One thread per process, a GL backend that works headless, short property tests, and turns."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

# Before numpy, torch or MuJoCo is imported: they read these once.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("LP_NUM_THREADS", "1")

import pytest
from hypothesis import HealthCheck, settings

from sim.render import setup_gl
from tests.turns import Turns

setup_gl()

settings.register_profile(
    "quick",
    max_examples=30,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("thorough", settings.get_profile("quick"), max_examples=1000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))

TURNS = pytest.StashKey[Turns]()
FOLDER = pytest.StashKey[tempfile.TemporaryDirectory]()


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node) -> None:
    """A folder for the locks that the workers of this run share, which goes with the run."""
    if FOLDER not in node.config.stash:
        node.config.stash[FOLDER] = tempfile.TemporaryDirectory(prefix="leanvla-turns-")
    node.workerinput["turns"] = node.config.stash[FOLDER].name


def pytest_configure(config: pytest.Config) -> None:
    if hasattr(config, "workerinput"):
        config.stash[TURNS] = Turns(Path(config.workerinput["turns"]))


# Outermost: the time spent waiting is not the test's.
@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item):
    turns = item.config.stash.get(TURNS, None)
    if turns is None:
        return (yield)
    with turns.take(alone=item.get_closest_marker("alone") is not None):
        return (yield)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests first, so that no worker begins one when the others are done."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)
