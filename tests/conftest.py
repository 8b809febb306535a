"""One thread per process, a GL backend that works headless, and short property tests."""

from __future__ import annotations

import os

# Before numpy, torch or MuJoCo is imported: they read these once.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("LP_NUM_THREADS", "1")

from hypothesis import HealthCheck, settings

from sim.render import setup_gl

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
