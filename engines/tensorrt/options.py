"""What a plan is to be, and a refusal where a library cannot do it: never a flag without effect."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from engines.errors import EngineError, EngineUnavailableError
from engines.tensorrt.library import TENSORRT, TENSORRT_RTX

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from engines.tensorrt.library import Library

Size = tuple[int, ...]
Range = tuple[Size, Size, Size]
"""Smallest, usual and largest."""


@dataclass(frozen=True)
class Profile:
    """Sizes that a plan with changing shapes is made for.

    Attributes:
        name: of the rung, for people.
        shapes: range of the shape of every input that has no static one.
        values: range of the value of every input that decides shapes (a run-time `k`).
    """

    name: str
    shapes: Mapping[str, Range] = field(default_factory=dict)
    values: Mapping[str, Range] = field(default_factory=dict)


@dataclass(frozen=True)
class BuildOptions:
    """How a plan is built. Precision is no option: networks are strongly typed, the graph says it.

    Attributes:
        library: `tensorrt` or `tensorrt_rtx`; the one that suits this machine when left out.
        capabilities: compute capabilities to build for (TensorRT-RTX), e.g. `SM89`; all from
            Ampere on when left out. TensorRT builds for the device that it runs on.
        profiles: ranges of changing shapes; none for a static graph.
        workspace_bytes: most scratch memory that a kernel may take.
        timing_cache: file that remembers measured kernels between builds (TensorRT).
        optimization_level: 0 (fast build) to 5 (fast plan); the library's own when left out.
        version_compatible: plan runs on later versions, too (TensorRT with its lean runtime).
        weight_streaming: weights may stay on the host, for models larger than the device.
        refit: weights can be replaced later.
        strip: plan without weights, to be refitted.
        decompose_attention: compute attention from its parts. Left out: where no fused kernel
            exists, which is in float32 on TensorRT-RTX, and wherever a build fails for that.
    """

    library: str | None = None
    capabilities: tuple[str, ...] = ()
    profiles: tuple[Profile, ...] = ()
    workspace_bytes: int | None = None
    timing_cache: Path | None = None
    optimization_level: int | None = None
    version_compatible: bool = False
    weight_streaming: bool = False
    refit: bool = False
    strip: bool = False
    decompose_attention: bool | None = None


def ladder_profiles(name: str, rungs: Sequence[int]) -> tuple[Profile, ...]:
    """One profile per rung for a graph that takes its budget at run time as the input `name`.

    Each holds one value alone, so that the kernels of every rung are chosen for it.

    Raises:
        EngineError: for rungs that are no budgets.
    """
    if not rungs or min(rungs) < 1:
        raise EngineError(f"rungs are {list(rungs)}: give token counts of at least 1")
    return tuple(
        Profile(f"{name}={rung}", values={name: ((rung,), (rung,), (rung,))}) for rung in rungs
    )


def check_options(options: BuildOptions, library: Library) -> None:
    """Refuse what this library cannot do on this machine.

    Raises:
        EngineUnavailableError: when a driver or another library is needed.
        EngineError: for values that make no sense.
    """
    level = options.optimization_level
    if level is not None and not 0 <= level <= 5:
        raise EngineError(f"optimization level is {level}: give 0 to 5")
    if options.workspace_bytes is not None and options.workspace_bytes < 1:
        raise EngineError(f"workspace is {options.workspace_bytes} bytes: give at least 1")
    if library.name == TENSORRT_RTX:
        _check_rtx(options, library)
    else:
        _check_tensorrt(options, library)


def _check_rtx(options: BuildOptions, library: Library) -> None:
    unknown = [name for name in options.capabilities if name not in library.capabilities]
    if unknown:
        raise EngineError(
            f"{library} builds for {', '.join(library.capabilities)} and not for "
            f"{', '.join(unknown)}; for another device build with {TENSORRT} on that device"
        )
    if options.timing_cache is not None:
        raise EngineError(f"{library} has no timing cache: leave it out, or build with {TENSORRT}")
    if options.version_compatible:
        raise EngineError(
            f"{library} brings no lean runtime for version-compatible plans: leave it out, or "
            f"build with {TENSORRT}"
        )
    needs = [name for name in ("refit", "strip") if getattr(options, name)]
    if needs and not library.driver:
        raise EngineUnavailableError(
            f"{' and '.join(needs)} needs a CUDA driver with {library}, none is here: build on a "
            "machine with an NVIDIA GPU, or leave it out"
        )


def _check_tensorrt(options: BuildOptions, library: Library) -> None:
    if not library.driver:
        raise EngineUnavailableError(
            f"{library} builds on the device that will run the plan, and no CUDA driver is here: "
            f"build there, or build for evidence with {TENSORRT_RTX}"
        )
    if options.capabilities:
        raise EngineError(
            f"{library} builds for the device that it runs on: leave the capabilities out, or "
            f"build with {TENSORRT_RTX}"
        )
