from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from sim import render
from sim.suites import make_suite

if TYPE_CHECKING:
    from sim.suites.tabletop.suite import Tabletop

trimesh = pytest.importorskip("trimesh")


@pytest.fixture
def ball(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LEANVLA_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "ball.stl"
    path.write_bytes(trimesh.creation.icosphere(subdivisions=4).export(file_type="stl"))
    return path


def test_decimation_keeps_the_shape_and_is_cached(ball: Path) -> None:
    small = render.decimated(ball, 200)
    mesh = trimesh.load(small, force="mesh")
    assert len(mesh.faces) <= 200
    np.testing.assert_allclose(mesh.bounds, [[-1] * 3, [1] * 3], atol=0.1)
    stamp = small.stat().st_mtime_ns
    assert render.decimated(ball, 200) == small
    assert small.stat().st_mtime_ns == stamp
    assert [p.suffix for p in small.parent.iterdir()] == [".stl"]


def test_cache_key_follows_content_and_budget(ball: Path) -> None:
    first = render.decimated(ball, 200)
    assert render.decimated(ball, 100) != first
    ball.write_bytes(trimesh.creation.box().export(file_type="stl"))
    assert render.decimated(ball, 200) != first


def test_only_visual_meshes_are_swapped(ball: Path) -> None:
    xml = f"""<mujoco><asset>
      <mesh name="look" file="{ball}"/><mesh name="solid" file="{ball}"/>
      <mesh name="both" file="{ball}"/></asset><worldbody>
      <geom type="mesh" mesh="look" contype="0" conaffinity="0"/>
      <geom type="mesh" mesh="solid"/><geom type="mesh" mesh="both"/>
      <geom type="mesh" mesh="both" contype="0" conaffinity="0"/></worldbody></mujoco>"""
    root = render.ET.fromstring(render.decimate_xml(xml, 100))
    files = {m.get("name"): m.get("file") for m in root.iter("mesh")}
    assert files["solid"] == files["both"] == str(ball)
    assert Path(files["look"]).parent.name == "meshes"


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
