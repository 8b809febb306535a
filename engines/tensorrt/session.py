"""A plan that runs: buffers once, copies and kernels recorded as one CUDA graph per session.

    engine = open_plan(Path("prefill.plan"), sha256=manifest_hash)
    with engine.session(values={"k": 64}) as session:
        outputs = session.run({"x": x, "k": np.array(64)})

An engine holds the weights; every rung gets a session of its own on it, with fixed shapes.

Not executed so far: this project's machines have no NVIDIA GPU. Everything here that is not a call
into TensorRT or CUDA is tested on stand-ins for the two.
"""

from __future__ import annotations

import hashlib
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from engines.errors import (
    EngineError,
    EngineLostError,
    EngineMemoryError,
    EngineUnavailableError,
)
from engines.session import Closing, Specs, TensorSpec, check_feeds
from engines.tensorrt.builder import make_logger
from engines.tensorrt.contents import dtype_name
from engines.tensorrt.cuda import Cuda
from engines.tensorrt.device import DeviceTensor
from engines.tensorrt.library import Library, find_library
from engines.tensorrt.types import numpy_type

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

NOT_EXECUTED = "plans are built here and not executed: no NVIDIA GPU with a CUDA driver"


def open_plan(
    plan: Path,
    *,
    sha256: str | None = None,
    library: str | None = None,
    weight_budget_bytes: int | None = None,
    cuda: Cuda | None = None,
    found: Library | None = None,
) -> TensorRTEngine:
    """Load a plan; its file is checked before TensorRT sees it.

    Args:
        plan: file that `build_plan` wrote.
        sha256: what the file must hash to, from a manifest.
        library: `tensorrt` or `tensorrt_rtx`.
        weight_budget_bytes: most device memory for weights, of a plan with weight streaming.
        cuda: CUDA calls; the device's own when left out.
        found: the library, already imported.

    Raises:
        EngineError: when the file is missing, damaged, or of another version or device.
        EngineUnavailableError: when library, driver or cuda-python is missing.
        EngineMemoryError: when the device has no room.
    """
    content = _read(plan, sha256)
    found = found or find_library(library)
    if not found.driver:
        raise EngineUnavailableError(
            f"{plan} cannot run: {found} is here, an NVIDIA GPU with a CUDA driver is not; run the "
            "ONNX file with ONNX Runtime instead"
        )
    cuda = cuda or Cuda()
    free = cuda.free_bytes()
    if weight_budget_bytes is None and len(content) > free:
        raise EngineMemoryError(
            f"{plan} needs at least {len(content) / 1e6:.0f} MB on the device, "
            f"{free / 1e6:.0f} MB are free: close what else uses it, or build with weight streaming"
        )
    return TensorRTEngine(plan.name, content, found, cuda, weight_budget_bytes)


class TensorRTEngine:
    """A deserialised plan, shared by the sessions of its rungs.

    Args:
        name: for messages.
        content: the plan.
        library: what deserialises it.
        cuda: CUDA calls.
        weight_budget_bytes: see `open_plan`.

    Raises:
        EngineError: when TensorRT refuses the plan.
    """

    def __init__(
        self,
        name: str,
        content: bytes,
        library: Library,
        cuda: Cuda,
        weight_budget_bytes: int | None = None,
    ) -> None:
        self.name, self.library, self.cuda = name, library, cuda
        self.log = make_logger(library.module)
        self._runtime = library.module.Runtime(self.log)
        self.engine = self._runtime.deserialize_cuda_engine(content)
        if self.engine is None:
            raise EngineError(
                f"{name}: {library} refuses it ({self.log.last()}); plans live as long as one "
                "version of the library and one kind of device: build it again with `leanvla build`"
            )
        if weight_budget_bytes is not None:
            self.engine.weight_streaming_budget_v2 = weight_budget_bytes

    def session(
        self,
        *,
        profile: int = 0,
        values: Mapping[str, int] | None = None,
        cuda_graph: bool = True,
        resident: Callable[[str], bool] = lambda name: False,
    ) -> TensorRTSession:
        """A session on one rung.

        Args:
            profile: index of the profile that the rung was built with.
            values: value of every input that decides shapes.
            cuda_graph: record copies and kernels once and replay them.
            resident: tells by name which outputs stay on the device, as `DeviceTensor`.
        """
        return TensorRTSession(self, profile, dict(values or {}), cuda_graph, resident)


class TensorRTSession(Closing):
    """One rung of an engine; a `Session` (see `engines/session.py`)."""

    def __init__(
        self,
        engine: TensorRTEngine,
        profile: int,
        values: dict[str, int],
        cuda_graph: bool,
        resident: Callable[[str], bool],
    ) -> None:
        self._owner, self._engine, self._cuda = engine, engine.engine, engine.cuda
        self._trt = engine.library.module
        self._wants_graph = cuda_graph
        self._graph: int | None = None
        self._host: dict[str, np.ndarray] = {}
        self._pinned: dict[str, int] = {}
        self._device: dict[str, int] = {}
        self._outside: dict[str, int] = {}
        self._stays: dict[str, DeviceTensor] = {}
        self._on_host: set[str] = set()
        self._closed = False
        self._stream = self._cuda.stream()
        self._context = self._engine.create_execution_context()
        if self._context is None:
            raise EngineMemoryError(
                f"{engine.name}: no room for its scratch memory ({engine.log.last()})"
            )
        try:
            self._inputs, self._outputs = self._shapes(profile, values)
            self._bind(resident)
        except BaseException:
            self.close()
            raise

    @property
    def inputs(self) -> Specs:
        """What `run` must be fed."""
        return self._inputs

    @property
    def outputs(self) -> Specs:
        """What `run` gives."""
        return self._outputs

    @property
    def provider(self) -> str:
        """`tensorrt` or `tensorrt_rtx`."""
        return self._owner.library.name

    @property
    def device_pointers(self) -> dict[str, int]:
        """Where inputs and outputs lie on the device, for a stage that follows."""
        return dict(self._device)

    def use_pointer(self, name: str, pointer: int) -> None:
        """Take an input from where it lies on the device already; it is copied no more.

        Raises:
            EngineError: when no input has that name.
        """
        if name not in self._inputs or name in self._on_host:
            raise EngineError(f"{self._owner.name}: no device input is named {name}")
        if self._outside.get(name) == pointer:
            return
        self._outside[name] = pointer
        self._context.set_tensor_address(name, pointer)
        self._drop_graph()  # a recording holds addresses

    def run(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        """Run the stage once. Arrays that come back are the caller's until the next `run`.

        A feed may be a `DeviceTensor` of another session; outputs that stay on the device are.

        Raises:
            EngineError: when a feed does not fit, or after `close`.
            EngineLostError: when the device has failed.
        """
        if self._closed:
            raise EngineError(f"{self._owner.name}: this session is closed")
        fed = {n: spec for n, spec in self._inputs.items() if n in feeds or n not in self._outside}
        check_feeds(self._owner.name, fed, feeds)
        for name in fed:
            self._take(name, feeds[name])
        if self._graph is None:
            self._enqueue()
            self._cuda.synchronize(self._stream)
            if self._wants_graph:
                self._graph = self._capture()
        else:
            self._cuda.launch(self._graph, self._stream)
            self._cuda.synchronize(self._stream)
        return {name: self._stays.get(name, self._host.get(name)) for name in self._outputs}

    def close(self) -> None:
        """Give memory back; a closed session runs no more. May be called again."""
        if self._closed:
            return
        self._closed = True
        self._drop_graph()
        self._context = None
        self._host.clear()
        for pointer in self._device.values():
            self._cuda.free(pointer)
        for address in self._pinned.values():
            self._cuda.free_pinned(address)
        self._cuda.destroy_stream(self._stream)

    def _shapes(self, profile: int, values: dict[str, int]) -> tuple[Specs, Specs]:
        """Fix every shape, then read them all."""
        engine, context = self._engine, self._context
        if not 0 <= profile < max(1, engine.num_optimization_profiles):
            count = engine.num_optimization_profiles
            raise EngineError(f"{self._owner.name}: profile {profile} of {count} does not exist")
        if profile and not context.set_optimization_profile_async(profile, self._stream):
            raise EngineError(f"{self._owner.name}: profile {profile}: {self._owner.log.last()}")
        names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
        inputs = [n for n in names if engine.get_tensor_mode(n) == self._trt.TensorIOMode.INPUT]
        deciding = [n for n in inputs if self._lives_on_host(n)]
        if set(values) != set(deciding):
            raise EngineError(
                f"{self._owner.name}: a value is needed for {', '.join(deciding) or 'nothing'}, "
                f"given for {', '.join(values) or 'nothing'}"
            )
        for name in inputs:
            shape = tuple(engine.get_tensor_shape(name))
            if name in deciding:
                self._fix_value(name, shape, values[name])
            elif -1 in shape:
                context.set_input_shape(name, engine.get_tensor_profile_shape(name, profile)[1])
        if context.infer_shapes():
            raise EngineError(f"{self._owner.name}: shapes stay open: {self._owner.log.last()}")
        specs = {name: self._spec(name) for name in names}
        outputs = [name for name in names if name not in inputs]
        return {n: specs[n] for n in inputs}, {n: specs[n] for n in outputs}

    def _lives_on_host(self, name: str) -> bool:
        return self._engine.get_tensor_location(name) == self._trt.TensorLocation.HOST

    def _fix_value(self, name: str, shape: tuple[int, ...], value: int) -> None:
        dtype = numpy_type(dtype_name(self._engine.get_tensor_dtype(name)))
        self._host[name], self._pinned[name] = self._cuda.pinned(shape, dtype)
        self._host[name][...] = value
        self._on_host.add(name)
        self._context.set_tensor_address(name, self._pinned[name])

    def _spec(self, name: str) -> TensorSpec:
        shape = tuple(int(size) for size in self._context.get_tensor_shape(name))
        return TensorSpec(shape, dtype_name(self._engine.get_tensor_dtype(name)))

    def _bind(self, resident: Callable[[str], bool]) -> None:
        """Memory for every tensor, once: on both sides, unless an output stays on the device."""
        for name, spec in {**self._inputs, **self._outputs}.items():
            if name in self._on_host:
                continue
            dtype = numpy_type(spec.dtype)
            size = math.prod(spec.shape) * dtype.itemsize
            self._device[name] = self._cuda.allocate(size)
            self._context.set_tensor_address(name, self._device[name])
            if name in self._outputs and resident(name):
                self._stays[name] = DeviceTensor(self._device[name], spec, self._cuda)
            else:
                self._host[name], self._pinned[name] = self._cuda.pinned(spec.shape, dtype)

    def _take(self, name: str, array: Any) -> None:
        if isinstance(array, DeviceTensor):
            self.use_pointer(name, array.pointer)
            return
        if self._outside.pop(name, None) is not None:  # from the host again
            self._context.set_tensor_address(name, self._device[name])
            self._drop_graph()
        if name in self._on_host:
            if not np.array_equal(self._host[name], array):
                raise EngineError(
                    f"{self._owner.name}: {name} is {self._host[name].tolist()} in this session "
                    f"and {array.tolist()} in the query: open a session for every rung"
                )
            return
        np.copyto(self._host[name], array)

    def _enqueue(self) -> None:
        """Copies in, kernels, copies out, all in the order of the stream."""
        for name in self._inputs:
            if name not in self._on_host and name not in self._outside:
                self._cuda.to_device(
                    self._device[name], self._pinned[name], self._host[name].nbytes, self._stream
                )
        if not self._context.execute_async_v3(self._stream):
            raise EngineLostError(f"{self._owner.name}: cannot run: {self._owner.log.last()}")
        for name in self._outputs:
            if name not in self._stays:
                self._cuda.to_host(
                    self._pinned[name], self._device[name], self._host[name].nbytes, self._stream
                )

    def _capture(self) -> int:
        """Record one query. The first one has run already: TensorRT sets itself up in it."""
        self._cuda.begin_capture(self._stream)
        try:
            self._enqueue()
        except BaseException:
            self._cuda.abandon_capture(self._stream)
            raise
        try:
            return self._cuda.end_capture(self._stream)
        except EngineUnavailableError as error:
            raise EngineUnavailableError(
                f"{self._owner.name} cannot be recorded as a CUDA graph ({error}): open the "
                "session with cuda_graph=False"
            ) from None

    def _drop_graph(self) -> None:
        if self._graph is not None:
            self._cuda.destroy_graph(self._graph)
            self._graph = None


def _read(plan: Path, sha256: str | None) -> bytes:
    if not plan.is_file():
        raise EngineError(f"{plan}: no such plan; build it with `leanvla build`")
    content = plan.read_bytes()
    if not content:
        raise EngineError(f"{plan} is empty: build it again with `leanvla build`")
    if sha256 is not None and hashlib.sha256(content).hexdigest() != sha256:
        raise EngineError(
            f"{plan} is not the file that was built (its hash differs): build it again with "
            "`leanvla build`"
        )
    return content
