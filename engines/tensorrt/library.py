"""Which TensorRT is here: the device's own, or TensorRT-RTX, which also builds without a GPU."""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from engines.errors import EngineUnavailableError

TENSORRT = "tensorrt"
TENSORRT_RTX = "tensorrt_rtx"
MODULES = {TENSORRT: ("tensorrt",), TENSORRT_RTX: ("tensorrt_rtx_bindings", "tensorrt_rtx")}
_REMEDY = {
    TENSORRT: "JetPack brings it (apt-get install python3-libnvinfer); elsewhere install NVIDIA's "
    "`tensorrt` package",
    TENSORRT_RTX: "run `pip install 'leanvla[trt-rtx]'`",
}


@dataclass(frozen=True)
class Library:
    """One of the two libraries, imported.

    Attributes:
        name: `tensorrt` or `tensorrt_rtx`.
        module: the Python module; both have the same interface.
        version: of the library.
        driver: a CUDA driver with a device is here, so that plans can also run.
    """

    name: str
    module: Any
    version: str
    driver: bool

    def __str__(self) -> str:
        """`tensorrt_rtx 1.7.1.116`."""
        return f"{self.name} {self.version}"

    @property
    def capabilities(self) -> tuple[str, ...]:
        """Compute capabilities that a plan can be built for without such a device, `SM86`, ..."""
        kinds = getattr(self.module, "ComputeCapability", None)
        names = vars(kinds).keys() if kinds is not None else ()
        known = [str(name) for name in names if str(name).startswith("SM")]
        return tuple(sorted(known, key=lambda name: int(name[2:])))


def installed(name: str) -> bool:
    """Whether a library can be imported."""
    return _module_name(name) is not None


def find_library(name: str | None = None) -> Library:
    """Import a library; without a name TensorRT where it can run, else TensorRT-RTX.

    Raises:
        EngineUnavailableError: when it is not installed, with how to get it, or cannot be loaded.
        ValueError: for an unknown name.
    """
    if name is None:
        usable = [each for each in (TENSORRT, TENSORRT_RTX) if installed(each)]
        if not usable:
            ways = "; or ".join(_REMEDY.values())
            raise EngineUnavailableError(f"no TensorRT is installed: {ways}")
        # TensorRT itself cannot even build without a device.
        name = usable[0] if has_driver() or len(usable) == 1 else usable[-1]
    if name not in MODULES:
        raise ValueError(f"unknown library {name!r}: choose {' or '.join(MODULES)}")
    module_name = _module_name(name)
    if module_name is None:
        raise EngineUnavailableError(f"{name} is not installed: {_REMEDY[name]}")
    try:
        module = importlib.import_module(module_name)
    except (ImportError, OSError, RuntimeError) as error:
        raise EngineUnavailableError(
            f"{name} cannot be loaded ({error}): {_REMEDY[name]}"
        ) from None
    return Library(name, module, str(module.__version__), has_driver())


@lru_cache(maxsize=1)
def has_driver() -> bool:
    """Whether a CUDA driver is here and finds a device. Takes no memory on it."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    count = ctypes.c_int(0)
    return (
        driver.cuInit(0) == 0
        and driver.cuDeviceGetCount(ctypes.byref(count)) == 0
        and count.value > 0
    )


def _module_name(name: str) -> str | None:
    for module in MODULES.get(name, ()):
        if importlib.util.find_spec(module) is not None:
            return module
    return None
