"""What `leanvla profile` measures: one policy per cell, all of them around the same weights."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from leanvla.commands.arguments import parse_ratio, split_list
from leanvla.errors import EnvironmentFault, UsageError
from pruning.registry import make_method

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import torch

    from leanvla.commands.profile import Profile
    from policy.openvla.config import OpenVLAConfig
    from policy.openvla.engine.policy import EnginePolicy
    from policy.openvla.policy import OpenVLAPolicy
    from policy.profiling import PolicyCell, Scene
    from pruning.base import Method

    Profiled = OpenVLAPolicy | EnginePolicy

DENSE = "dense"
_DTYPES = ("float32", "bfloat16", "float16")


@dataclass(frozen=True)
class CellSpec:
    """A method at a keep ratio; `str` of it is the cell's name."""

    method: str
    keep: float

    def __str__(self) -> str:
        """`dense`, or `vla_pruner @ 0.25`."""
        return DENSE if self.keep == 1 else f"{self.method} @ {self.keep:g}"

    def make(self) -> Method:
        """The pruning method."""
        name = DENSE if self.keep == 1 else self.method
        return make_method(name, keep=self.keep)


@dataclass(frozen=True)
class Bench:
    """Everything that a measurement runs, and what it is.

    Attributes:
        specs: the grid, dense first.
        cells: what answers queries, by name of the cell.
        cuts: full decoder layers of every cell.
        architecture: the network's architecture.
        synchronize: waits for the device; None on a processor.
        peak_bytes: most memory that the device has given so far; None where it cannot be told.
        runs_on: runtime, device and precision of the dense cell.
        scenes: what the policies see, in words.
        seen: the same, round by round.
    """

    specs: tuple[CellSpec, ...]
    cells: dict[str, PolicyCell]
    cuts: dict[str, int]
    architecture: OpenVLAConfig
    synchronize: Callable[[], None] | None
    peak_bytes: Callable[[], int] | None
    runs_on: str
    scenes: str
    seen: Sequence[Scene] = ()


def grid(config: Profile) -> tuple[CellSpec, ...]:
    """Dense, then every method at every keep ratio below one.

    Raises:
        UsageError: for a list or a ratio that makes no sense.
        MethodError: for an unknown method.
    """
    keeps = [parse_ratio(text) for text in split_list(config.keep, "--keep")]
    specs = [CellSpec(DENSE, 1.0)]
    for method in split_list(config.method, "--method"):
        if method != DENSE:
            specs += [CellSpec(method, keep) for keep in keeps if keep < 1]
    for spec in specs:
        spec.make()
    return tuple(specs)


def make_bench(config: Profile) -> Bench:
    """Load or make the network once, and a policy around it for every cell.

    Raises:
        UsageError: for an impossible configuration.
        EnvironmentFault: when torch or the device is missing.
    """
    specs = grid(config)
    if config.engine is None and config.dtype not in (None, *_DTYPES):
        raise UsageError(f"--dtype is {config.dtype!r}: choose one of {', '.join(_DTYPES)}")
    pictures = _pictures(config)
    from policy.profiling import PolicyCell, synthetic_scenes

    waits = _prepare(config)
    make = _maker(config)
    policies = {str(spec): make(spec.make()) for spec in specs}
    first = policies[DENSE]
    scenes = synthetic_scenes(first, config.frame_size, seed=config.seed)
    words = f"made-up frames of {config.frame_size} x {config.frame_size} pixels, JPEG"
    if pictures:
        scenes, words = [replace(scenes[0], frames=pictures)], "the given pictures, JPEG"
    return Bench(
        specs=specs,
        cells={name: PolicyCell(p, scenes, config.text) for name, p in policies.items()},
        cuts={name: p.pruner.cut for name, p in policies.items()},
        architecture=first.config,
        synchronize=waits[0],
        peak_bytes=waits[1],
        runs_on=first.runs_on,
        scenes=words,
        seen=scenes,
    )


def architecture(config: Profile) -> OpenVLAConfig:
    """The architecture that is asked for, without any weights.

    Raises:
        UsageError: for layers of something that is no shape.
    """
    if config.engine is not None:
        if config.shape or config.layers is not None or config.tower_layers is not None:
            raise UsageError("--engine is measured as it was exported: leave --shape out")
        from policy.openvla.config import load_config

        return load_config(config.engine / "policy")
    if config.shape:
        from policy.openvla.shapes import shape

        return shape(config.shape, config.layers, config.tower_layers)
    if config.layers is not None or config.tower_layers is not None:
        raise UsageError("--layers and --tower-layers shorten a --shape, a checkpoint stays whole")
    from policy.openvla.config import load_config
    from policy.registry import resolve_policy

    return load_config(resolve_policy(config.policy))


def _maker(config: Profile) -> Callable[[Method], Profiled]:
    """What makes the policy of a cell."""
    if config.engine is not None:
        return _engine_policies(config, config.engine)
    return _random_policies(config) if config.shape else _loaded_policies(config)


def _engine_policies(config: Profile, folder: Path) -> Callable[[Method], EnginePolicy]:
    from policy.openvla.engine.policy import EnginePolicy

    return lambda method: EnginePolicy.from_folder(
        folder,
        method=method,
        unnorm_key=config.unnorm_key,
        threads=config.threads,
        provider=config.device.partition(":")[0],
        allow_cpu=config.allow_cpu,
        plans=config.plans,
    )


def _random_policies(config: Profile) -> Callable[[Method], OpenVLAPolicy]:
    from policy.openvla.random_weights import random_network, random_policy

    wanted = architecture(config)
    network = random_network(
        wanted, device=config.device, dtype=_dtype(config.dtype), seed=config.seed
    )
    return lambda method: random_policy(network, wanted, method)


def _loaded_policies(config: Profile) -> Callable[[Method], OpenVLAPolicy]:
    from policy.openvla.policy import OpenVLAPolicy
    from policy.registry import resolve_policy

    architecture(config)
    folder = resolve_policy(config.policy)
    return lambda method: OpenVLAPolicy.from_folder(
        folder,
        method=method,
        unnorm_key=config.unnorm_key,
        device=config.device,
        dtype=_dtype(config.dtype),
    )


def _pictures(config: Profile) -> tuple[bytes, ...]:
    """The given pictures as JPEG, refused before any weight is read when they do not fit."""
    from leanvla.commands.infer import read_image
    from policy.profiling import encode_jpeg

    frames = tuple(encode_jpeg(read_image(path)) for path in config.image)
    views = len(architecture(config).views)
    if frames and len(frames) != views:
        raise UsageError(f"{len(frames)} picture(s) given, the policy reads {views}")
    return frames


def precision(config: Profile) -> str:
    """Type of weights and activations, a key of `traffic.BYTES_OF`."""
    if config.engine is None:
        return config.dtype or _DTYPES[0]
    from engines.artefact import Engine, open_ort
    from engines.precision import PRECISIONS

    engine = Engine(config.engine, open_ort())
    return PRECISIONS[engine.manifest.precision].weights


def _prepare(config: Profile) -> tuple[Callable[[], None] | None, Callable[[], int] | None]:
    """Set the runtime up; how to wait for the device, and how to ask for its peak memory."""
    if config.device.partition(":")[0] not in ("cpu", "cuda"):
        raise UsageError(f"--device is {config.device!r}: choose cpu or cuda")
    threads = _threads(config.threads)
    if config.engine is not None:
        return None, None  # its `run` gives back arrays on the host: nothing is left to wait for
    _check_torch(config.device)
    import torch

    torch.set_num_threads(threads)
    if config.device == "cpu":
        return None, None
    return torch.cuda.synchronize, torch.cuda.max_memory_allocated


def _check_torch(device: str) -> None:
    if importlib.util.find_spec("torch") is None:
        raise EnvironmentFault("profiling a torch policy needs torch: pip install 'leanvla[torch]'")
    if device == "cpu":
        return
    import torch

    if not torch.cuda.is_available():
        raise EnvironmentFault(
            f"--device {device}: this torch ({torch.__version__}) sees no GPU; run `leanvla doctor`"
        )


def _threads(threads: int) -> int:
    if threads < 1:
        raise UsageError(f"--threads is {threads}: give at least one")
    return threads


def _dtype(name: str | None) -> torch.dtype:
    import torch

    kinds = {"bfloat16": torch.bfloat16, "float16": torch.float16}
    return kinds.get(name or "", torch.float32)
