"""Visual meshes with fewer faces: shape, texture coordinates, and what is left alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sim import meshes

trimesh = pytest.importorskip("trimesh")


@pytest.fixture
def ball(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LEANVLA_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "ball.stl"
    path.write_bytes(trimesh.creation.icosphere(subdivisions=4).export(file_type="stl"))
    return path


@pytest.fixture(params=[".msh", ".obj"])
def painted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Path:
    """A ball whose texture runs along x and z, every face with vertices of its own."""
    monkeypatch.setenv("LEANVLA_CACHE", str(tmp_path / "cache"))
    sphere = trimesh.creation.icosphere(subdivisions=4)
    points = sphere.vertices[sphere.faces].reshape(-1, 3)
    mesh = meshes.Textured(
        points, (points[:, [0, 2]] + 1) / 2, np.arange(len(points)).reshape(-1, 3)
    )
    path = tmp_path / f"painted{request.param}"
    path.write_bytes(meshes._msh(mesh) if path.suffix == ".msh" else meshes._wavefront(mesh))
    return path


def test_decimation_keeps_the_shape_and_is_cached(ball: Path) -> None:
    small = meshes.decimated(ball, 200)
    mesh = trimesh.load(small, force="mesh")
    assert len(mesh.faces) <= 200
    np.testing.assert_allclose(mesh.bounds, [[-1] * 3, [1] * 3], atol=0.1)
    stamp = small.stat().st_mtime_ns
    assert meshes.decimated(ball, 200) == small
    assert small.stat().st_mtime_ns == stamp
    assert [p.suffix for p in small.parent.iterdir()] == [".stl"]


def test_cache_key_follows_content_and_budget(ball: Path) -> None:
    first = meshes.decimated(ball, 200)
    assert meshes.decimated(ball, 100) != first
    ball.write_bytes(trimesh.creation.box().export(file_type="stl"))
    assert meshes.decimated(ball, 200) != first


def test_a_textured_mesh_keeps_its_coordinates_in_a_file_of_its_kind(painted: Path) -> None:
    small = meshes.decimated(painted, 100, textured=True)
    assert small.suffix == painted.suffix
    before, mesh = meshes._read_textured(painted), meshes._read_textured(small)
    assert before is not None
    assert mesh is not None
    assert 100 < len(mesh.faces) <= 100 * meshes.TEXTURED_FACES < len(before.faces)
    np.testing.assert_allclose(np.abs(mesh.points).max(0), 1, atol=0.1)
    # The texture still runs along x and z: a vertex carries the coordinate of where it is.
    np.testing.assert_allclose(mesh.uv, (mesh.points[:, [0, 2]] + 1) / 2, atol=0.06)


def test_a_textured_mesh_of_few_faces_stays_as_it_is(painted: Path) -> None:
    same = meshes.decimated(painted, 10_000, textured=True)
    assert same.read_bytes() == painted.read_bytes()


def test_a_cut_mesh_is_left_to_the_simulator_to_refuse(painted: Path) -> None:
    if painted.suffix == ".msh":
        painted.write_bytes(painted.read_bytes()[:-4])
        assert meshes.decimated(painted, 10, textured=True).read_bytes() == painted.read_bytes()


def test_only_visual_meshes_are_swapped(ball: Path) -> None:
    xml = f"""<mujoco><asset><texture name="t"/><material name="painted" texture="t"/>
      <mesh name="look" file="{ball}"/><mesh name="solid" file="{ball}"/>
      <mesh name="both" file="{ball}"/><mesh name="label" file="{ball}"/></asset><worldbody>
      <geom type="mesh" mesh="look" contype="0" conaffinity="0"/>
      <geom type="mesh" mesh="label" contype="0" conaffinity="0" material="painted"/>
      <geom type="mesh" mesh="solid"/><geom type="mesh" mesh="both"/>
      <geom type="mesh" mesh="both" contype="0" conaffinity="0"/></worldbody></mujoco>"""
    root = meshes.ET.fromstring(meshes.decimate_xml(xml, 100, keep_texture=True))
    files = {m.get("name"): m.get("file") for m in root.iter("mesh")}
    # An STL file has no texture coordinates that could be kept.
    assert files["solid"] == files["both"] == files["label"] == str(ball)
    assert Path(files["look"] or "").parent.name == "meshes"
