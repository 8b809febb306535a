"""The fakes, behind a worker in an interpreter of its own."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from sim.suites.base import SuiteSpec
from sim.suites.remote.suite import RemoteSuite
from tests.sim.fakes import ACTION, OBSERVATION

SPEC = SuiteSpec("fake", OBSERVATION, ACTION, 40, "fast")
ROOT = Path(__file__).resolve().parents[2]


def remote_suite(
    factory: str = "FakeSuite", limits: dict[str, float] | None = None, **options: object
) -> RemoteSuite:
    """A suite of `tests.sim.fakes` in a worker that may import tests, as a real one may not."""
    script = (
        f"#!{sys.executable}\nimport runpy, sys\nsys.path.insert(0, {str(ROOT)!r})\n"
        "sys.argv = sys.argv[2:]\nrunpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    python = Path(tempfile.mkdtemp()) / "python"
    python.write_text(script)
    python.chmod(0o755)
    return RemoteSuite(SPEC, python, f"tests.sim.fakes:{factory}", options, **(limits or {}))
