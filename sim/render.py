"""Software rendering that is fast enough: GL backend, named profiles, frames.

On a machine without a GPU a frame costs what its vertices cost: a Panda's visual meshes have 168 k
faces, and a 96 x 96 picture shows none of them. `lowpoly` swaps them for the copies of
`sim.meshes`. A profile is always named and recorded with results; `default` keeps the simulator's
own quality.

Nothing here imports mujoco before `setup_gl` has chosen the backend.
"""

from __future__ import annotations

import atexit
import ctypes.util
import importlib.util
import os
import subprocess
import sys
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from jaxtyping import Int32, UInt8

BACKENDS = ("egl", "osmesa")
APT_PACKAGES = "libegl1 libegl-mesa0 libosmesa6 libgl1-mesa-dri libopengl0"


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
        return self.segments(data, camera, size)[0]

    def segments(
        self, data: Any, camera: str, size: int
    ) -> tuple[Int32[np.ndarray, "size size"], Int32[np.ndarray, "size size"]]:
        """Geom id and site id of every pixel, -1 where it shows none."""
        renderer, kinds = self._at(size), self._mujoco.mjtObj
        renderer.enable_segmentation_rendering()
        try:
            self._update(renderer, data, camera)
            ids = renderer.render()
        finally:
            renderer.disable_segmentation_rendering()
        geoms, sites = (ids[..., 1] == kind for kind in (kinds.mjOBJ_GEOM, kinds.mjOBJ_SITE))
        return tuple((ids[..., 0] * shown - (~shown)).astype("int32") for shown in (geoms, sites))

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
