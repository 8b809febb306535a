from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest

from sim import render
from sim.suites import make_suite

if TYPE_CHECKING:
    from sim.suites.tabletop.suite import Tabletop


def test_working_backend_passes_the_pre_flight() -> None:
    report = render.check_gl()
    assert report.ok, report
    assert report.renderer


def test_broken_backend_is_named_with_its_remedy() -> None:
    report = render.check_gl("nonsense")
    assert not report.ok
    assert "'nonsense'" in report.problem
    assert "libosmesa6" in report.remedy
    assert "libopengl0" in report.remedy
    assert "MUJOCO_GL=egl" in report.remedy


def test_a_missing_simulator_is_not_blamed_on_gl(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(render.importlib.util, "find_spec", lambda name: None)
    report = render.check_gl("egl")
    assert not report.ok
    assert report.problem == "mujoco is not installed"
    assert "leanvla[sim]" in report.remedy


def test_blank_frames_are_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(render, "_PROBE", "print('0|0|llvmpipe')")
    report = render.check_gl("egl")
    assert not report.ok
    assert "blank" in report.problem


def test_hung_backend_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(render, "_PROBE", "import time; time.sleep(30)")
    report = render.check_gl("egl", timeout_s=0.5)
    assert not report.ok
    assert "did not answer" in report.problem


def test_an_explicit_backend_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUJOCO_GL", "osmesa")
    assert render.setup_gl() == "osmesa"
    monkeypatch.delenv("MUJOCO_GL")
    monkeypatch.setattr(render, "_has_library", lambda name: name == "OSMesa")
    assert render.setup_gl() == "osmesa"


def test_importing_render_does_not_import_mujoco() -> None:
    code = "import sys, sim.render; sys.exit('mujoco' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.gl
@pytest.mark.parametrize(("profile", "difference"), [("fast", 3), ("default", 25)])
def test_profiles_show_the_same_scene(tabletop: Tabletop, profile: str, difference: float) -> None:
    tabletop.reset(3)
    other = make_suite("tabletop", render_profile=profile)
    other.reset(3)
    frames = [suite.observe().images[0].astype(int) for suite in (tabletop, other)]
    other.close()
    assert other.spec.render_profile == profile
    assert 0 < np.abs(frames[0] - frames[1]).mean() < difference


@pytest.mark.gl
def test_osmesa_draws_what_egl_draws(tabletop: Tabletop) -> None:
    code = (
        "import sys; from sim.suites import make_suite; suite = make_suite('tabletop');"
        "suite.reset(3); sys.stdout.buffer.write(suite.observe().images[0].tobytes())"
    )
    env = {**os.environ, "MUJOCO_GL": "osmesa"}
    env.pop("PYOPENGL_PLATFORM", None)
    run = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, check=True)
    tabletop.reset(3)
    assert run.stdout == tabletop.observe().images[0].tobytes()


@pytest.mark.gl
def test_other_sizes_show_the_same_picture(tabletop: Tabletop) -> None:
    tabletop.reset(3)
    small = tabletop.render("agentview", 96).astype(float)
    large = tabletop.render("agentview", 192).reshape(96, 2, 96, 2, 3).mean((1, 3))
    assert np.abs(small - large).mean() < 6
    assert np.array_equal(tabletop.observe().images[0], small)
