"""The few CUDA runtime calls that a session needs, through cuda-python; errors in our own words."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any

import numpy as np

from engines.errors import EngineLostError, EngineMemoryError, EngineUnavailableError

if TYPE_CHECKING:
    from collections.abc import Sequence

_OUT_OF_MEMORY = 2
# Illegal address, misaligned address, launch failure, uncorrectable ECC, assertion: the context is
# gone for this process, whatever is called next.
_LOST = frozenset({214, 700, 710, 716, 719, 721})
REMEDY = "run `pip install cuda-python` in the CUDA version of the device"


class Cuda:
    """CUDA runtime calls.

    Args:
        runtime: cuda-python's runtime module; imported when left out.

    Raises:
        EngineUnavailableError: when cuda-python is not installed.
    """

    def __init__(self, runtime: Any = None) -> None:
        self._cuda = _import_runtime() if runtime is None else runtime

    def stream(self) -> int:
        """A new stream."""
        return int(self._call("cudaStreamCreate"))

    def destroy_stream(self, stream: int) -> None:
        """Give a stream back."""
        self._call("cudaStreamDestroy", stream)

    def synchronize(self, stream: int) -> None:
        """Wait until a stream is idle."""
        self._call("cudaStreamSynchronize", stream)

    def free_bytes(self) -> int:
        """Device memory that nobody has taken."""
        return int(self._call("cudaMemGetInfo")[0])

    def allocate(self, size: int) -> int:
        """Device memory."""
        return int(self._call("cudaMalloc", max(1, size), about=f"{size} bytes on the device"))

    def free(self, pointer: int) -> None:
        """Give device memory back."""
        self._call("cudaFree", pointer)

    def pinned(self, shape: Sequence[int], dtype: np.dtype) -> tuple[np.ndarray, int]:
        """A host array that the device copies from and to at full speed, and its address."""
        count = int(np.prod(shape, dtype=np.int64))
        size = max(1, count) * dtype.itemsize
        address = int(self._call("cudaMallocHost", size, about=f"{size} pinned bytes on the host"))
        block = (ctypes.c_uint8 * size).from_address(address)
        array = np.ctypeslib.as_array(block).view(dtype)[:count]
        return array.reshape(tuple(shape)), address

    def free_pinned(self, address: int) -> None:
        """Give pinned memory back; arrays on it must not be touched any more."""
        self._call("cudaFreeHost", address)

    def to_device(self, target: int, source: int, size: int, stream: int) -> None:
        """Copy host to device, in the order of the stream."""
        self._copy(target, source, size, "cudaMemcpyHostToDevice", stream)

    def to_host(self, target: int, source: int, size: int, stream: int) -> None:
        """Copy device to host, in the order of the stream."""
        self._copy(target, source, size, "cudaMemcpyDeviceToHost", stream)

    def copy_lines(
        self, target: int, target_step: int, source: int, source_step: int, width: int, count: int
    ) -> None:
        """Copy `count` lines of `width` bytes on the device, before what streams do next.

        Steps from line to line are in bytes.
        """
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyDeviceToDevice
        self._call("cudaMemcpy2D", target, target_step, source, source_step, width, count, kind)

    def begin_capture(self, stream: int) -> None:
        """Record what follows on the stream instead of running it."""
        mode = self._cuda.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._call("cudaStreamBeginCapture", stream, mode)

    def end_capture(self, stream: int) -> int:
        """What was recorded, ready to be launched."""
        graph = self._call("cudaStreamEndCapture", stream)
        try:
            return int(self._call("cudaGraphInstantiate", graph, 0))
        finally:
            self._call("cudaGraphDestroy", graph)

    def abandon_capture(self, stream: int) -> None:
        """End a recording that failed; whatever it holds is dropped."""
        self._cuda.cudaStreamEndCapture(stream)

    def launch(self, graph: int, stream: int) -> None:
        """Run a recording."""
        self._call("cudaGraphLaunch", graph, stream)

    def destroy_graph(self, graph: int) -> None:
        """Give a recording back."""
        self._call("cudaGraphExecDestroy", graph)

    def _copy(self, target: int, source: int, size: int, kind: str, stream: int) -> None:
        direction = getattr(self._cuda.cudaMemcpyKind, kind)
        self._call("cudaMemcpyAsync", target, source, size, direction, stream)

    def _call(self, name: str, *args: Any, about: str = "") -> Any:
        """One call: its result, its results as a tuple, or None.

        Raises:
            EngineMemoryError: when memory has run out.
            EngineLostError: when the device has failed for good.
            EngineUnavailableError: for every other error.
        """
        code, *values = getattr(self._cuda, name)(*args)
        if int(code):
            raise self._error(int(code), code, name, about)
        if len(values) > 1:
            return tuple(values)
        return values[0] if values else None

    def _error(self, number: int, code: Any, name: str, about: str) -> Exception:
        text = f"{name}: CUDA error {number} ({getattr(code, 'name', code)})"
        if number == _OUT_OF_MEMORY:
            return EngineMemoryError(
                f"no room for {about or 'this engine'} ({text}): close what else uses the device, "
                "or take a smaller rung or precision"
            )
        if number in _LOST:
            return EngineLostError(f"the device has failed ({text}): start the process again")
        return EngineUnavailableError(f"{text}: check the driver with `nvidia-smi`")


def _import_runtime() -> Any:
    try:
        from cuda.bindings import runtime
    except ImportError:
        try:
            from cuda import cudart as runtime  # cuda-python before 12.8
        except ImportError:
            raise EngineUnavailableError(f"running a plan needs cuda-python: {REMEDY}") from None
    return runtime
