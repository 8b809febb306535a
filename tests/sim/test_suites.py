from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from sim.suites import SUITES, make_suite, suite_spec

if TYPE_CHECKING:
    from sim.suites.tabletop.suite import Tabletop


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    env = {name: value for name, value in os.environ.items() if name != "PYTHONWARNINGS"}
    return subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
    )


@pytest.mark.gl
def test_a_spec_without_a_simulator_is_that_of_the_simulator(tabletop: Tabletop) -> None:
    assert suite_spec("tabletop") == tabletop.spec
    assert suite_spec("tabletop", render_profile="fast").render_profile == "fast"


@pytest.mark.parametrize("name", SUITES)
def test_a_spec_starts_no_simulator(name: str) -> None:
    code = (
        f"import sys; from sim.suites import suite_spec; print(suite_spec({name!r}).name,"
        "[m for m in ('mujoco', 'robosuite', 'torch') if m in sys.modules])"
    )
    assert run_python(code).stdout == f"{name} []\n"


@pytest.mark.parametrize("of", [make_suite, suite_spec])
def test_unknown_names_list_the_valid_ones(of) -> None:
    with pytest.raises(ValueError, match=r"did you mean 'tabletop'.*choose one of tabletop"):
        of("tabeltop")
    with pytest.raises(ValueError, match="choose one of default, fast, lowpoly"):
        of("tabletop", render_profile="ultra")


@pytest.mark.gl
@pytest.mark.parametrize(
    "code",
    [
        "import sim.suites.tabletop.suite",
        "from sim.suites import make_suite; s = make_suite('tabletop'); s.observe(); s.close()",
    ],
)
def test_a_suite_says_nothing(code: str) -> None:
    done = run_python(code)
    assert (done.stdout, done.stderr) == ("", "")
