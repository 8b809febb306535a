"""Visual meshes with fewer faces, kept in a cache: what `lowpoly` renders instead.

A mesh without a texture loses faces alone. One with a texture keeps its coordinates: vertices are
merged where only their normals differ, collapsed, and every vertex that is left takes the texture
coordinate of the nearest one that fell into it.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pruning.user_cache import cache_dir

if TYPE_CHECKING:
    from jaxtyping import Float64, Int64

_CACHE_VERSION = "1"
TEXTURED_FACES = 4
"""A texture shows where a mesh was bent: such a mesh may keep so many times the faces."""


_READ = (".obj", ".stl")
_READ_TEXTURED = (".obj", ".msh")


class Textured(NamedTuple):
    """A mesh with one texture coordinate per vertex."""

    points: Float64[np.ndarray, "n 3"]
    uv: Float64[np.ndarray, "n 2"]
    faces: Int64[np.ndarray, "f 3"]


def decimate_xml(xml: str, max_faces: int, *, keep_texture: bool = False) -> str:
    """Point the visual meshes of an MJCF document at decimated copies in the cache.

    Collision meshes stay as they are, so physics does not change.

    Args:
        xml: MJCF text whose mesh files are absolute paths.
        max_faces: largest number of faces of a mesh without a texture.
        keep_texture: keep texture coordinates where a material has a texture, and more faces there;
            without it they are lost.
    """
    root = ET.fromstring(xml)
    painted = {m.get("name") for m in root.iter("material") if m.get("texture")}
    visual: set[str | None] = set()
    solid: set[str | None] = set()
    textured: set[str | None] = set()
    for geom in root.iter("geom"):
        passive = geom.get("contype") == "0" and geom.get("conaffinity") == "0"
        (visual if passive else solid).add(geom.get("mesh"))
        if keep_texture and geom.get("material") in painted:
            textured.add(geom.get("mesh"))
    for mesh in root.iter("mesh"):
        name, path = mesh.get("name"), Path(mesh.get("file") or "")
        kept = name in textured
        if name in visual - solid and path.suffix in (_READ_TEXTURED if kept else _READ):
            mesh.set("file", str(decimated(path, max_faces, textured=kept)))
    return ET.tostring(root, encoding="unicode")


def decimated(path: Path, max_faces: int, *, textured: bool = False) -> Path:
    """The cached decimated copy of a mesh, made when missing.

    Args:
        path: a Wavefront or STL file, or MuJoCo's `.msh`.
        max_faces: largest number of faces; `TEXTURED_FACES` times as many with a texture.
        textured: keep texture coordinates, in a file of the same kind; a mesh that cannot be
            brought down with them is used as it is.
    """
    kind = ":textured" if textured else ""
    content = path.read_bytes()
    key = f"{_CACHE_VERSION}:{max_faces}{kind}:".encode() + content
    folder, name = cache_dir() / "meshes", hashlib.sha256(key).hexdigest()[:32]
    target = folder / (f"{name}{path.suffix}" if textured else f"{name}.stl")
    if not target.exists():
        small = _simplify_textured(path, max_faces) if textured else _simplify(path, max_faces)
        _write_atomically(target, small)
    return target


def _simplify(path: Path, max_faces: int) -> bytes:
    import fast_simplification
    import trimesh

    mesh = trimesh.load(path, force="mesh", process=False)
    mesh = trimesh.Trimesh(mesh.vertices, mesh.faces, process=True)
    for shape in (mesh, mesh.convex_hull):
        mesh = shape
        if len(mesh.faces) > max_faces:
            points, faces = fast_simplification.simplify(
                mesh.vertices, mesh.faces, target_count=max_faces, agg=7
            )
            mesh = trimesh.Trimesh(points, faces, process=False)
        # Many loose shells cannot be merged below their count; their hull can.
        if len(mesh.faces) <= 2 * max_faces:
            break
    return mesh.export(file_type="stl")


def _simplify_textured(path: Path, max_faces: int) -> bytes:
    """A mesh with fewer faces and its texture coordinates; its own bytes where that cannot be."""
    import fast_simplification

    most = TEXTURED_FACES * max_faces
    mesh = _read_textured(path)
    if mesh is None or len(mesh.faces) <= most:
        return path.read_bytes()
    size = np.ptp(mesh.points, axis=0).max()
    rows = np.round(np.hstack([mesh.points / size, mesh.uv]), 5)
    _, first, place = np.unique(rows, axis=0, return_index=True, return_inverse=True)
    points, uv = mesh.points[first].astype(np.float32), mesh.uv[first]
    faces = place.reshape(-1)[mesh.faces].astype(np.int32)
    _, _, collapses = fast_simplification.simplify(
        points, faces, target_count=most, agg=7, return_collapses=True
    )
    left, faces, home = fast_simplification.replay_simplification(points, faces, collapses)
    if len(faces) > 2 * most:
        return path.read_bytes()
    small = Textured(left, uv[_nearest(points, left, home)], faces)
    return _msh(small) if path.suffix == ".msh" else _wavefront(small)


def _read_textured(path: Path) -> Textured | None:
    """None for a mesh without one texture coordinate per vertex."""
    if path.suffix == ".msh":
        return _read_msh(path.read_bytes())
    import trimesh

    mesh = trimesh.load(path, force="mesh", process=False)
    uv = getattr(mesh.visual, "uv", None)
    if uv is None:
        return None
    return Textured(np.asarray(mesh.vertices), np.asarray(uv), np.asarray(mesh.faces))


def _read_msh(content: bytes) -> Textured | None:
    """MuJoCo's own format: four counts, then positions, normals, texture coordinates, faces."""
    if len(content) < 16:
        return None
    count, normals, coordinates, faces = map(int, np.frombuffer(content, np.int32, 4))
    numbers = 3 * count + 3 * normals + 2 * coordinates
    if coordinates != count or len(content) != 16 + 4 * (numbers + 3 * faces):
        return None
    values = np.frombuffer(content, np.float32, numbers, 16)
    index = np.frombuffer(content, np.int32, 3 * faces, 16 + 4 * numbers)
    return Textured(
        values[: 3 * count].reshape(-1, 3).astype(np.float64),
        values[3 * (count + normals) :].reshape(-1, 2).astype(np.float64),
        index.reshape(-1, 3),
    )


def _msh(mesh: Textured) -> bytes:
    count = len(mesh.points)
    head = np.array([count, 0, count, len(mesh.faces)], np.int32)
    values = (mesh.points.astype(np.float32), mesh.uv.astype(np.float32))
    return b"".join(part.tobytes() for part in (head, *values, mesh.faces.astype(np.int32)))


def _nearest(
    points: Float64[np.ndarray, "n 3"],
    left: Float64[np.ndarray, "m 3"],
    home: Int64[np.ndarray, " n"],
) -> Int64[np.ndarray, " m"]:
    """For every vertex that is left, the nearest of those that fell into it."""
    away = np.linalg.norm(points - left[home], axis=1)
    order = np.lexsort((away, home))
    heads = np.searchsorted(home[order], np.arange(len(left)))
    return order[np.minimum(heads, len(order) - 1)]


def _wavefront(mesh: Textured) -> bytes:
    lines = [f"v {x:.7g} {y:.7g} {z:.7g}" for x, y, z in mesh.points]
    lines += [f"vt {u:.6f} {v:.6f}" for u, v in mesh.uv]
    lines += [f"f {a}/{a} {b}/{b} {c}/{c}" for a, b, c in mesh.faces + 1]
    return ("\n".join(lines) + "\n").encode()


def _write_atomically(target: Path, content: bytes) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=target.parent, delete=False) as file:
        file.write(content)
    os.replace(file.name, target)
