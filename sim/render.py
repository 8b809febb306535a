"""Software rendering that is fast enough: GL backend, named profiles, decimated visual meshes.

On a machine without a GPU a frame costs what its vertices cost: a Panda's visual meshes have 168 k
faces, and a 96 x 96 picture shows none of them. `lowpoly` swaps them for decimated copies. A
profile is always named and recorded with results; `default` keeps the simulator's own quality.

Nothing here imports mujoco before `setup_gl` has chosen the backend.
"""

from __future__ import annotations

import atexit
import ctypes.util
import hashlib
import importlib.util
import os
import subprocess
import sys
import tempfile
import weakref
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from jaxtyping import Int32, UInt8

BACKENDS = ("egl", "osmesa")
APT_PACKAGES = "libegl1 libegl-mesa0 libosmesa6 libgl1-mesa-dri libopengl0"
_CACHE_VERSION = "1"


@dataclass(frozen=True)
class RenderProfile:
    """How much the renderer may leave out.

    Attributes:
        name: name on the command line and in results.
        offsamples: multisampling of the offscreen buffer; None keeps the model's own.
        effects: draw shadows, reflections, skybox and haze.
        max_faces: visual meshes are decimated to at most so many faces; None keeps them.
    """

    name: str
    offsamples: int | None
    effects: bool
    max_faces: int | None


PROFILES = {
    "default": RenderProfile("default", None, True, None),
    "fast": RenderProfile("fast", 0, False, None),
    "lowpoly": RenderProfile("lowpoly", 0, False, 250),
}


def get_profile(name: str) -> RenderProfile:
    """The profile called `name`.

    Raises:
        ValueError: when there is none; the message lists the valid names.
    """
    if name not in PROFILES:
        raise ValueError(f"unknown render profile {name!r}: choose one of {', '.join(PROFILES)}")
    return PROFILES[name]


def setup_gl() -> str:
    """Choose MuJoCo's GL backend for this process, before mujoco is imported, and return its name.

    `MUJOCO_GL` wins when set; otherwise EGL, then OSMesa, whichever library is installed. One
    rasteriser thread per process: workers already use all the cores.
    """
    os.environ.setdefault("LP_NUM_THREADS", "1")
    if not os.environ.get("MUJOCO_GL"):
        found = [b for b, lib in zip(BACKENDS, ("EGL", "OSMesa"), strict=True) if _has_library(lib)]
        os.environ["MUJOCO_GL"] = found[0] if found else BACKENDS[0]
    return os.environ["MUJOCO_GL"]


@dataclass(frozen=True)
class GLReport:
    """Whether a GL backend can render, and what to do when it cannot.

    Attributes:
        backend: value of `MUJOCO_GL` that was tried.
        ok: a picture with content came back.
        renderer: what GL calls itself, e.g. `llvmpipe (LLVM 15.0.6, 256 bits)`.
        problem: one sentence, empty when ok.
        remedy: what to do, empty when ok.
    """

    backend: str
    ok: bool
    renderer: str = ""
    problem: str = ""
    remedy: str = ""


_PROBE = """
import mujoco
model = mujoco.MjModel.from_xml_string(
    '<mujoco><worldbody><light pos="0 0 2"/><geom size=".3" rgba="1 0 0 1"/>'
    '<camera name="eye" pos="0 0 2"/></worldbody></mujoco>')
data = mujoco.MjData(model)
mujoco.mj_forward(model, data)
with mujoco.Renderer(model, 32, 32) as renderer:
    renderer.update_scene(data, camera="eye")
    frame = renderer.render()
    from OpenGL import GL
    name = GL.glGetString(GL.GL_RENDERER)
print(int(frame.min()), int(frame.max()), (name or b"").decode(errors="replace"), sep="|")
"""


def check_gl(backend: str | None = None, timeout_s: float = 60.0) -> GLReport:
    """Render a red ball in a subprocess, where a crash of the driver hurts nobody.

    Args:
        backend: a value of `MUJOCO_GL` such as `egl`; None takes what `setup_gl` chooses.
        timeout_s: after so long the backend counts as hung.
    """
    backend = backend or setup_gl()
    if importlib.util.find_spec("mujoco") is None:
        problem, remedy = "mujoco is not installed", "run `pip install 'leanvla[sim]'`"
        return GLReport(backend, False, problem=problem, remedy=remedy)
    env = {**os.environ, "MUJOCO_GL": backend}
    env.pop("PYOPENGL_PLATFORM", None)
    other = next((b for b in BACKENDS if b != backend), BACKENDS[0])
    remedy = f"install {APT_PACKAGES} (apt-get install), or try MUJOCO_GL={other}"
    try:
        probe = subprocess.run(
            [sys.executable, "-c", _PROBE],
            env=env,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        problem = f"GL backend {backend!r} did not answer within {timeout_s:.0f} s"
        return GLReport(backend, False, problem=problem, remedy=remedy)
    return _judge_probe(backend, probe, remedy)


def _judge_probe(backend: str, probe: subprocess.CompletedProcess[str], remedy: str) -> GLReport:
    if probe.returncode != 0:
        last = (probe.stderr.strip().splitlines() or [f"exit status {probe.returncode}"])[-1]
        problem = f"GL backend {backend!r} does not work: {last.strip()}"
        return GLReport(backend, False, problem=problem, remedy=remedy)
    low, high, renderer = probe.stdout.strip().splitlines()[-1].split("|", 2)
    if low == high:
        problem = f"GL backend {backend!r} ({renderer}) renders blank frames"
        return GLReport(backend, False, renderer, problem, remedy)
    return GLReport(backend, True, renderer)


def _has_library(name: str) -> bool:
    return ctypes.util.find_library(name) is not None


class FrameRenderer:
    """Renders named cameras of one model at any size; one GL context per size, made on first use.

    Args:
        model: a `mujoco.MjModel`; its quality settings are edited to match the profile.
        profile: what to leave out.
        groups: groups of geoms to draw.
        sites: whether sites are drawn, which some suites show goals with.
    """

    def __init__(
        self,
        model: Any,
        profile: RenderProfile,
        *,
        groups: Sequence[int] = (1,),
        sites: bool = False,
    ) -> None:
        import mujoco

        self._mujoco, self._model, self._profile = mujoco, model, profile
        self._renderers: dict[int, Any] = {}
        self._option = mujoco.MjvOption()
        self._option.geomgroup[:] = [group in groups for group in range(6)]
        if not sites:
            self._option.sitegroup[:] = 0
        weakref.finalize(self, _close_all, self._renderers).atexit = False
        if profile.offsamples is not None:
            model.vis.quality.offsamples = profile.offsamples
        if not profile.effects:
            model.vis.quality.shadowsize = 0

    def frame(self, data: Any, camera: str, size: int) -> UInt8[np.ndarray, "size size 3"]:
        """One upright RGB frame."""
        renderer = self._at(size)
        self._update(renderer, data, camera)
        return renderer.render()

    def geoms(self, data: Any, camera: str, size: int) -> Int32[np.ndarray, "size size"]:
        """Geom id of every pixel, -1 for the background."""
        renderer = self._at(size)
        renderer.enable_segmentation_rendering()
        try:
            self._update(renderer, data, camera)
            ids = renderer.render()
        finally:
            renderer.disable_segmentation_rendering()
        is_geom = ids[..., 1] == self._mujoco.mjtObj.mjOBJ_GEOM
        return (ids[..., 0] * is_geom - (~is_geom)).astype("int32")

    def close(self) -> None:
        """Free every GL context."""
        _close_all(self._renderers)

    def _at(self, size: int) -> Any:
        if size not in self._renderers:
            # A frame clears the whole offscreen buffer, so it is made no larger than asked.
            self._model.vis.global_.offwidth = self._model.vis.global_.offheight = size
            make, most = self._mujoco.Renderer, max(400, self._model.ngeom + 100)
            self._renderers[size] = make(self._model, size, size, max_geom=most)
            # mujoco.egl ends its display at exit; hooks run last in, first out: ours is first.
            atexit.register(_close_all, self._renderers)
        return self._renderers[size]

    def _update(self, renderer: Any, data: Any, camera: str) -> None:
        renderer.update_scene(data, camera=camera, scene_option=self._option)
        if not self._profile.effects:
            flags, names = renderer.scene.flags, self._mujoco.mjtRndFlag
            for flag in ("SHADOW", "REFLECTION", "SKYBOX", "HAZE"):
                flags[getattr(names, f"mjRND_{flag}")] = 0


def _close_all(renderers: dict[int, Any]) -> None:
    while renderers:
        renderers.popitem()[1].close()


def cache_dir() -> Path:
    """Where derived assets are kept: `$LEANVLA_CACHE`, or `~/.cache/leanvla`."""
    return Path(os.environ.get("LEANVLA_CACHE") or Path.home() / ".cache" / "leanvla")


def decimate_xml(xml: str, max_faces: int, *, spare_textured: bool = False) -> str:
    """Point the visual meshes of an MJCF document at decimated copies in the cache.

    Collision meshes stay as they are, so physics does not change.

    Args:
        xml: MJCF text whose mesh files are absolute paths.
        max_faces: largest number of faces of a mesh.
        spare_textured: leave meshes with a texture alone: decimation loses its coordinates.
    """
    root = ET.fromstring(xml)
    textured = {m.get("name") for m in root.iter("material") if m.get("texture")}
    visual: set[str | None] = set()
    solid: set[str | None] = set()
    for geom in root.iter("geom"):
        passive = geom.get("contype") == "0" and geom.get("conaffinity") == "0"
        spared = spare_textured and geom.get("material") in textured
        (visual if passive and not spared else solid).add(geom.get("mesh"))
    for mesh in root.iter("mesh"):
        path = Path(mesh.get("file") or "")
        if mesh.get("name") in visual - solid and path.suffix in (".obj", ".stl"):
            mesh.set("file", str(decimated(path, max_faces)))
    return ET.tostring(root, encoding="unicode")


def decimated(path: Path, max_faces: int) -> Path:
    """The cached decimated copy of a mesh, made when missing; the mesh itself when small enough."""
    content = path.read_bytes()
    key = hashlib.sha256(f"{_CACHE_VERSION}:{max_faces}:".encode() + content).hexdigest()[:32]
    target = cache_dir() / "meshes" / f"{key}.stl"
    if not target.exists():
        _write_atomically(target, _simplify(path, max_faces))
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


def _write_atomically(target: Path, content: bytes) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=target.parent, delete=False) as file:
        file.write(content)
    os.replace(file.name, target)
