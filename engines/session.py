"""One stage that can run: named arrays in, named arrays out, shapes fixed.

    with open_session(...) as session:
        outputs = session.run({"pixels": pixels, "input_ids": ids})

Every runtime (ONNX Runtime, TensorRT, torch as the reference) stands behind this one interface.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple, Protocol

from engines.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    import numpy as np
    from typing_extensions import Self


class TensorSpec(NamedTuple):
    """Shape and type of one input or output.

    Attributes:
        shape: every size; static.
        dtype: name of a numpy type, e.g. `float32`, `float16`, `int64`.
    """

    shape: tuple[int, ...]
    dtype: str

    def __str__(self) -> str:
        """`float32 [1, 288, 128]`."""
        return f"{self.dtype} {list(self.shape)}"


Specs = dict[str, TensorSpec]
"""Inputs or outputs by name, in the order of the graph."""


class Session(Protocol):
    """A loaded stage.

    Attributes:
        inputs: what `run` must be fed.
        outputs: what it gives.
        provider: what executes it, e.g. `CPUExecutionProvider`, `tensorrt`, `torch`.
    """

    @property
    def inputs(self) -> Specs:
        """What `run` must be fed."""
        ...

    @property
    def outputs(self) -> Specs:
        """What `run` gives."""
        ...

    @property
    def provider(self) -> str:
        """What executes the stage."""
        ...

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run the stage once. Arrays that come back are the caller's until the next `run`."""
        ...

    def close(self) -> None:
        """Give memory back; a closed session runs no more. May be called again."""
        ...


def runtime_name(provider: str) -> str:
    """A provider in plain words: `onnxruntime cpu`, `tensorrt`."""
    kind = provider.removesuffix("ExecutionProvider")
    return kind if kind == provider else f"onnxruntime {kind.lower()}"


class Closing:
    """Makes a session a context manager."""

    def close(self) -> None:
        """Give memory back."""

    def __enter__(self) -> Self:
        """The session itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close it."""
        self.close()


def check_feeds(
    stage: str,
    inputs: Specs,
    feeds: Mapping[str, np.ndarray],
    fitted: Mapping[str, np.ndarray] = MappingProxyType({}),
) -> None:
    """Refuse what does not fit, before a runtime sees it.

    Args:
        stage: its name, for the error.
        inputs: what the stage must be fed.
        feeds: what it is fed.
        fitted: arrays that were looked at before; these very objects are not looked at again.

    Raises:
        EngineError: naming stage and input.
    """
    for name, spec in inputs.items():
        if name not in feeds:
            raise EngineError(f"stage {stage}: input {name} is missing, give {spec}")
        array = feeds[name]
        if fitted.get(name) is array:
            continue
        if array.shape != spec.shape or array.dtype.name != spec.dtype:
            raise EngineError(
                f"stage {stage}: input {name} is {array.dtype.name} {list(array.shape)}, "
                f"the engine takes {spec}"
            )
    if len(feeds) > len(inputs):
        unknown = ", ".join(sorted(feeds.keys() - inputs.keys()))
        raise EngineError(f"stage {stage}: no input is named {unknown}")
