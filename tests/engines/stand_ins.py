"""A CUDA runtime in host memory and a TensorRT whose plan doubles its input, for host-side logic.

Copies really copy (ctypes), captures really record, and freed memory really is gone from the books.
`Kept` is a device for whole policies: ONNX Runtime whose tensors the host must not look at.
"""

from __future__ import annotations

import ctypes
import enum
from types import SimpleNamespace

import numpy as np

from engines.tensorrt.library import Library


class FakeCuda:
    """cuda-python's runtime module, as far as `engines.tensorrt.cuda` calls it."""

    cudaMemcpyKind = enum.IntEnum(  # noqa: N815
        "cudaMemcpyKind",
        {
            "cudaMemcpyHostToDevice": 1,
            "cudaMemcpyDeviceToHost": 2,
            "cudaMemcpyDeviceToDevice": 3,
        },
    )
    cudaStreamCaptureMode = enum.IntEnum(  # noqa: N815
        "cudaStreamCaptureMode", {"cudaStreamCaptureModeThreadLocal": 1}
    )

    def __init__(self, free: int = 1 << 30) -> None:
        self.blocks, self.calls, self.free_left = {}, [], free
        self.recording: list | None = None
        self.fail: dict[str, int] = {}
        self.graphs: dict[int, list] = {}

    def __getattr__(self, name: str):
        if not name.startswith("cuda"):
            raise AttributeError(name)
        action = ALIASES.get(name) or getattr(type(self), "_" + name)

        def call(*args):
            self.calls.append(name)
            if self.fail.get(name):
                return (self.fail[name],)
            return (0, *action(self, *args))

        return call

    def _take(self, size):
        block = ctypes.create_string_buffer(size)
        address = ctypes.addressof(block)
        self.blocks[address] = block
        return (address,)

    def _drop(self, address):
        del self.blocks[address]
        return ()

    def work(self, job):
        """Do it now, or record it."""
        if self.recording is None:
            job()
        else:
            self.recording.append(job)

    def _cudaStreamCreate(self):  # noqa: N802
        return self._take(1)

    def _cudaMemGetInfo(self):  # noqa: N802
        return self.free_left, 1 << 31

    def _cudaStreamSynchronize(self, stream):  # noqa: N802
        return ()

    def _cudaMemcpyAsync(self, target, source, size, kind, stream):  # noqa: N802
        self.work(lambda: ctypes.memmove(target, source, size))
        return ()

    def _cudaMemcpy2D(self, target, tstep, source, sstep, width, count, kind):  # noqa: N802
        for line in range(count):
            ctypes.memmove(target + line * tstep, source + line * sstep, width)
        return ()

    def _cudaStreamBeginCapture(self, stream, mode):  # noqa: N802
        self.recording = []
        return ()

    def _cudaStreamEndCapture(self, stream):  # noqa: N802
        recorded, self.recording = self.recording, None
        self.graphs[number := len(self.graphs) + 1] = recorded
        return (number,)

    def _cudaGraphInstantiate(self, graph, flags):  # noqa: N802
        return (graph + 1000,)

    def _cudaGraphDestroy(self, graph):  # noqa: N802
        return ()

    def _cudaGraphLaunch(self, graph, stream):  # noqa: N802
        for job in self.graphs[graph - 1000]:
            job()
        return ()

    def _cudaGraphExecDestroy(self, graph):  # noqa: N802
        del self.graphs[graph - 1000]
        return ()


ALIASES = {
    "cudaMalloc": FakeCuda._take,
    "cudaMallocHost": FakeCuda._take,
    "cudaFree": FakeCuda._drop,
    "cudaFreeHost": FakeCuda._drop,
    "cudaStreamDestroy": FakeCuda._drop,
}


class FakeContext:
    def __init__(self, engine, cuda) -> None:
        self.engine, self.cuda, self.addresses = engine, cuda, {}
        self.fail = False

    def set_tensor_address(self, name, address):
        self.addresses[name] = address

    def set_optimization_profile_async(self, profile, stream):
        self.engine.chosen = profile
        return True

    def set_input_shape(self, name, shape):
        self.engine.shapes[name] = tuple(shape)

    def infer_shapes(self):
        return []

    def get_tensor_shape(self, name):
        shape = self.engine.shapes[name]
        if -1 in shape:
            count = np.ctypeslib.as_array((ctypes.c_int64 * 1).from_address(self.addresses["k"]))[0]
            return tuple(int(count) if size == -1 else size for size in shape)
        return shape

    def execute_async_v3(self, stream):
        if self.fail:
            return False
        self.cuda.work(self._double)
        return True

    def _double(self):
        shape = self.get_tensor_shape("y")
        count = int(np.prod(shape))
        x, y = (
            np.ctypeslib.as_array((ctypes.c_float * count).from_address(self.addresses[n]))
            for n in ("x", "y")
        )
        y[:] = 2 * x[:count]


class FakeEngine:
    """`y = 2 x`, of which the first `k` rows when `k` is an input."""

    num_optimization_profiles = 2

    def __init__(self, cuda, adjustable: bool) -> None:
        self.cuda = cuda
        self.names = ["x", "k", "y"] if adjustable else ["x", "y"]
        self.shapes = {"x": (4, 2), "k": (), "y": (-1, 2) if adjustable else (4, 2)}
        self.chosen = 0
        self.contexts: list[FakeContext] = []
        self.num_io_tensors = len(self.names)

    def get_tensor_name(self, i):
        return self.names[i]

    def get_tensor_mode(self, name):
        return "OUT" if name == "y" else "IN"

    def get_tensor_location(self, name):
        return "HOST" if name == "k" else "DEVICE"

    def get_tensor_dtype(self, name):
        return "DataType.INT64" if name == "k" else "DataType.FLOAT"

    def get_tensor_shape(self, name):
        return self.shapes[name]

    def create_execution_context(self):
        self.contexts.append(FakeContext(self, self.cuda))
        return self.contexts[-1]


class _Logger:
    INTERNAL_ERROR, ERROR, WARNING = range(3)

    def __init__(self) -> None:
        pass


def library(cuda: FakeCuda, *, adjustable=False, refuses=False, driver=True) -> Library:
    """A TensorRT that deserialises every plan into a `FakeEngine`."""
    engine = FakeEngine(cuda, adjustable)

    class Runtime:
        def __init__(self, log) -> None:
            self.log = log

        def deserialize_cuda_engine(self, content):
            if refuses:
                self.log.log(_Logger.ERROR, "The engine plan file is not compatible")
                return None
            return engine

    module = SimpleNamespace(
        Runtime=Runtime,
        ILogger=_Logger,
        TensorIOMode=SimpleNamespace(INPUT="IN"),
        TensorLocation=SimpleNamespace(HOST="HOST"),
        engine=engine,
    )
    return Library("tensorrt", module, "10.3.0", driver)


class Handle:
    """A tensor that only a `Kept` session may open."""

    def __init__(self, array: np.ndarray) -> None:
        self.inside, self.shape = array, array.shape

    def put(self, slot: int, new: Handle) -> None:
        self.inside[:, :, slot] = new.inside[:, :, 0]


class Kept:
    """A session whose outputs stay on a pretended device, or lie in memory that it uses again.

    What the last run gave is spoiled before the next, as the buffers of a device session are.
    """

    provider = "tensorrt"

    def __init__(self, session, resident) -> None:
        self._session, self._resident = session, resident
        self.inputs, self.outputs = session.inputs, session.outputs
        self._given: list[np.ndarray] = []

    def run(self, feeds):
        feeds = {n: f.inside if isinstance(f, Handle) else f for n, f in feeds.items()}
        feeds = {name: array.copy() for name, array in feeds.items()}
        for array in self._given:
            array.fill(-1)
        found = {name: array.copy() for name, array in self._session.run(feeds).items()}
        self._given = list(found.values())
        return {n: Handle(a) if self._resident(n) else a for n, a in found.items()}

    def close(self) -> None:
        self._session.close()
