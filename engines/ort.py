"""Stages on ONNX Runtime: CPU, CUDA and TensorRT providers.

ONNX Runtime goes on with the CPU when a provider cannot be loaded, and says so in a log line only.
Here that is a refusal, unless the caller allows it.

On the CPU a session writes into arrays of its own and reads the caller's where they lie: after the
first run it allocates nothing, and what comes back is the caller's until the next run.
"""

from __future__ import annotations

import ctypes
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from engines.errors import EngineError, EngineLostError, EngineMemoryError, EngineUnavailableError
from engines.memory import free_bytes, mebibytes
from engines.session import Closing, Specs, TensorSpec, check_feeds

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
COPIED_BYTES = 64 * 1024
"""An input up to this size is copied rather than bound anew."""
_TYPES = {"float": "float32", "double": "float64"}
_NO_MEMORY = re.compile(r"out of memory|bad_alloc|failed to allocate|BFCArena", re.IGNORECASE)
_LOST = re.compile(
    r"CUDA failure (4|7\d\d|999)|device-side|illegal memory|unspecified launch", re.I
)


class OrtSession(Closing):
    """One graph on ONNX Runtime.

    Args:
        path: the graph; its weights lie beside it.
        provider: `cpu`, `cuda` or `tensorrt`.
        threads: of this session.
        allow_cpu: go on with the CPU when the provider is missing.
        resident: outputs that stay on the device: they come back as handles for the next session.

    Raises:
        EngineUnavailableError: when the provider is missing or was dropped.
        EngineMemoryError: when the stage does not fit.
        EngineError: when the file is no graph that ONNX Runtime accepts.
    """

    def __init__(
        self,
        path: Path,
        *,
        provider: str = "cpu",
        threads: int = 1,
        allow_cpu: bool = False,
        resident: Collection[str] = (),
    ) -> None:
        self.name, self._resident = path.stem, frozenset(resident)
        wanted = _known_provider(provider, allow_cpu)
        self._session: Any = _start(path, wanted, threads)
        self._provider = _in_use(self._session, wanted, allow_cpu)
        self._inputs = {i.name: _spec(i) for i in self._session.get_inputs()}
        self._outputs = {o.name: _spec(o) for o in self._session.get_outputs()}
        self._names = list(self._outputs)
        self._host: _HostArrays | None = None
        if not self._resident and self._provider == PROVIDERS["cpu"]:
            self._host = _HostArrays(self._session, self._outputs)

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
        """The first execution provider in use."""
        return self._provider

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run the stage once.

        Raises:
            EngineError: when a feed does not fit.
            EngineMemoryError: when the device has no memory left.
            EngineLostError: when the device failed for good, or the session is closed.
        """
        if self._session is None:
            raise EngineLostError(f"stage {self.name} is closed: load the engine again")
        if self._host is not None:
            check_feeds(self.name, self._inputs, feeds, self._host.bound)
        try:
            if self._host is not None:
                return self._host.run(self._session, self._inputs, feeds)
            return self._run_bound(feeds)
        except Exception as error:
            known = _explain(self.name, error)
            if isinstance(known, EngineLostError):
                self.close()
            raise known from None

    def close(self) -> None:
        """Give memory back."""
        self._session = self._host = None

    def _run_bound(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        """Outputs in `resident` never leave the device; handles of others are taken as they are."""
        device = "cpu" if self._provider == PROVIDERS["cpu"] else "cuda"
        binding = self._session.io_binding()
        for name in self._inputs:
            value = feeds[name]
            if hasattr(value, "device_name"):
                binding.bind_ortvalue_input(name, value)
            else:
                binding.bind_cpu_input(name, value)
        for name in self._names:
            binding.bind_output(name, device if name in self._resident else "cpu")
        self._session.run_with_iobinding(binding)
        values = zip(self._names, binding.get_outputs(), strict=True)
        return {name: v if name in self._resident else v.numpy() for name, v in values}


class _HostArrays:
    """Outputs in arrays that stay, inputs read where they lie.

    A small input that comes in another array every time is copied into one that stays: cheaper
    than telling the runtime of a new place.

    Attributes:
        bound: the array that the runtime reads, by input.

    Args:
        session: ONNX Runtime's.
        outputs: what it gives.
    """

    def __init__(self, session: Any, outputs: Specs) -> None:
        self._binding = session.io_binding()
        self._outputs = {name: np.empty(s.shape, s.dtype) for name, s in outputs.items()}
        for name, array in self._outputs.items():
            self._binding.bind_output(name, "cpu", 0, array.dtype.type, array.shape, _at(array))
        self.bound: dict[str, np.ndarray] = {}
        self._copies: dict[str, np.ndarray] = {}

    def run(
        self, session: Any, inputs: Specs, feeds: Mapping[str, np.ndarray]
    ) -> dict[str, np.ndarray]:
        """Run; an input that is the array of the last run is bound already."""
        for name in inputs:
            if self.bound.get(name) is not feeds[name]:
                self._take(name, feeds[name])
        session.run_with_iobinding(self._binding)
        return dict(self._outputs)

    def _take(self, name: str, given: np.ndarray) -> None:
        if name in self._copies:
            self._copies[name][...] = given
            return
        array = np.ascontiguousarray(given)
        if name in self.bound and array.nbytes <= COPIED_BYTES:
            array = self._copies[name] = array.copy()
        self._binding.bind_input(name, "cpu", 0, array.dtype.type, array.shape, _at(array))
        # Held until it is replaced: the runtime reads it without owning it. A copy is made anew.
        self.bound[name] = array


def _at(array: np.ndarray) -> int:
    return int(array.__array_interface__["data"][0])


def _known_provider(name: str, allow_cpu: bool) -> str:
    """The provider to ask for.

    Raises:
        EngineUnavailableError: when this build of ONNX Runtime has none of that name.
    """
    if name not in PROVIDERS:
        raise EngineError(f"unknown provider {name!r}: choose from {', '.join(PROVIDERS)}")
    import onnxruntime

    have = onnxruntime.get_available_providers()
    if PROVIDERS[name] in have:
        return PROVIDERS[name]
    if allow_cpu:
        return PROVIDERS["cpu"]
    raise EngineUnavailableError(
        f"{PROVIDERS[name]} is not in this onnxruntime {onnxruntime.__version__} "
        f"({', '.join(have)}): install onnxruntime-gpu, or allow the CPU with --allow-cpu"
    )


def _start(path: Path, provider: str, threads: int) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Else it turns int8 into uint8 halfway, and from opset 21 on refuses its own result.
    options.add_session_config_entry("session.qdqisint8allowed", "1")
    providers = [provider, *([] if provider == PROVIDERS["cpu"] else [PROVIDERS["cpu"]])]
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=providers)
    except Exception as error:  # the runtime has a class for every status code
        raise _explain(path.stem, error) from None


def _in_use(session: Any, wanted: str, allow_cpu: bool) -> str:
    used = session.get_providers()[0]
    if used == wanted or allow_cpu:
        return used
    raise EngineUnavailableError(
        f"{wanted} was dropped by ONNX Runtime, which would go on with {used}: "
        f"{_why_dropped(wanted)}; mend it, or allow the CPU with --allow-cpu"
    )


def _why_dropped(provider: str) -> str:
    """Load the provider's library once more: the loader's own words name what is missing."""
    path = _provider_library(provider)
    try:
        ctypes.CDLL(str(path))
    except OSError as error:
        return f"its library does not load ({error})"
    return f"{path.name} loads, so it found no device or no driver that it can use"


def _provider_library(provider: str) -> Path:
    import onnxruntime

    kind = next(name for name, full in PROVIDERS.items() if full == provider)
    return Path(onnxruntime.__file__).parent / "capi" / f"libonnxruntime_providers_{kind}.so"


def _explain(stage: str, error: Exception) -> Exception:
    """ONNX Runtime's error as one of ours."""
    text = " ".join(str(error).split())
    if _NO_MEMORY.search(text) or isinstance(error, MemoryError):
        free = free_bytes()
        left = "" if free is None else f", {mebibytes(free)} of host memory are free"
        return EngineMemoryError(f"stage {stage}: out of memory ({text[:200]}){left}")
    if _LOST.search(text):
        return EngineLostError(
            f"stage {stage}: the device failed for good ({text[:200]}): start the process again"
        )
    return EngineError(f"stage {stage}: ONNX Runtime refuses it ({text[:300]})")


def _spec(node: Any) -> TensorSpec:
    """`tensor(float)` and a shape as a spec; a name instead of a size is not static."""
    kind = node.type.removeprefix("tensor(").removesuffix(")")
    if not all(isinstance(size, int) for size in node.shape):
        raise EngineError(f"{node.name} has shape {node.shape}: engines have static shapes")
    return TensorSpec(tuple(node.shape), _TYPES.get(kind, kind))
