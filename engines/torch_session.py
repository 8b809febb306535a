"""A stage on torch: the reference that other runtimes are compared with.

Eager, compiled, or recorded once as a CUDA graph: what an engine should beat is not eager alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import torch

from engines.errors import EngineUnavailableError
from engines.session import Closing, Specs, check_feeds

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor

    from engines.stage import StageModule

    Compute = Callable[..., dict[str, Tensor]]

Mode = Literal["eager", "compiled", "cuda-graph"]
_RUNS_BEFORE_RECORDING = 3
"""Libraries choose kernels and take workspace in their first runs, which no graph may hold."""


class TorchSession(Closing):
    """A stage module with its weights.

    Args:
        name: of the stage, for messages.
        stage: the module; it moves to `device`.
        mode: `eager`; `compiled` by `torch.compile`, which takes its time in the first run; or
            `cuda-graph`, recorded in the first run.
        device: torch device.
        backend: compiler of `torch.compile`; its usual one needs a C++ compiler on a CPU.

    Raises:
        EngineUnavailableError: for a CUDA graph or a device that this torch cannot give.
    """

    provider = "torch"

    def __init__(
        self,
        name: str,
        stage: StageModule,
        mode: Mode = "eager",
        device: str = "cpu",
        backend: str = "inductor",
    ) -> None:
        self._device = _usable(name, mode, device)
        self.inputs: Specs = stage.inputs
        self.outputs: Specs = stage.outputs()
        self.name, self._stage = name, stage.eval().to(self._device)
        self._compute: Compute = stage.compute
        if mode == "compiled":
            self._compute = torch.compile(stage.compute, dynamic=False, backend=backend)
        elif mode == "cuda-graph":
            self._compute = _Recorded(stage.compute)

    @torch.inference_mode()
    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run the stage once."""
        check_feeds(self.name, self.inputs, feeds)
        tensors = {
            name: torch.from_numpy(np.asarray(feeds[name])).to(self._device) for name in self.inputs
        }
        return {name: value.cpu().numpy() for name, value in self._compute(**tensors).items()}


class _Recorded:
    """A computation as one CUDA graph: inputs are copied to where it reads them, then it replays.

    Args:
        compute: what is recorded, with the shapes of its first inputs.
    """

    def __init__(self, compute: Compute) -> None:
        self._compute = compute
        self._graph: torch.cuda.CUDAGraph | None = None
        self._read: dict[str, Tensor] = {}
        self._written: dict[str, Tensor] = {}

    def __call__(self, **inputs: Tensor) -> dict[str, Tensor]:
        """Replay; the first call records."""
        if self._graph is None:
            self._record(inputs)
        for name, tensor in inputs.items():
            self._read[name].copy_(tensor)
        if self._graph is not None:
            self._graph.replay()
        return self._written

    def _record(self, inputs: Mapping[str, Tensor]) -> None:
        self._read = {name: tensor.clone() for name, tensor in inputs.items()}
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(_RUNS_BEFORE_RECORDING):
                self._compute(**self._read)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._written = self._compute(**self._read)
        self._graph = graph


def _usable(name: str, mode: Mode, device: str) -> torch.device:
    found = torch.device(device)
    if mode == "cuda-graph" and found.type != "cuda":
        raise EngineUnavailableError(
            f"stage {name}: a CUDA graph needs a CUDA device, not {device}"
        )
    if found.type == "cuda" and not torch.cuda.is_available():
        raise EngineUnavailableError(
            f"stage {name}: this torch ({torch.__version__}) sees no GPU; run `leanvla doctor`"
        )
    return found
