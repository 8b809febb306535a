"""One builder for both libraries: an ONNX file in, a plan and a report of what is in it out.

Networks are strongly typed: a graph in float16 or bfloat16 stays in it, and no flag changes that.
"""

from __future__ import annotations

import hashlib
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engines.errors import EngineError
from engines.manifest import sha256
from engines.tensorrt.contents import Contents, Tensor, dtype_name, walk
from engines.tensorrt.library import TENSORRT, TENSORRT_RTX, Library, find_library
from engines.tensorrt.options import BuildOptions, Profile, check_options
from engines.weights import WEIGHTS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

OLDEST_CAPABILITY = 80
_NO_KERNEL = "not supported by a dedicated kernel"
_DYNAMIC_INT8 = ("DynamicQuantizeLinear", "MatMulInteger", "ConvInteger")


@dataclass(frozen=True)
class BuildReport:
    """What was built.

    Attributes:
        library: name of the library.
        version: its version; plans do not outlive it.
        capabilities: what the plan is for; `device` for the one that it was built on.
        contents: inputs, outputs and layers of the network that the plan was built from.
        profiles: names of the profiles, in the order of their indices.
        plan_bytes: size of the plan.
        plan_sha256: hash of the plan.
        onnx_sha256: hash of the graph's file.
        weights_sha256: hash of the weights beside it; empty when it holds its own.
        version_compatible: later versions of the library load it, too.
        build_s: how long the build took.
        decomposed_attention: attention operations that were taken apart.
        warnings: what the library said.
    """

    library: str
    version: str
    capabilities: tuple[str, ...]
    contents: Contents
    profiles: tuple[str, ...]
    plan_bytes: int
    plan_sha256: str
    onnx_sha256: str
    weights_sha256: str
    version_compatible: bool
    build_s: float
    decomposed_attention: int
    warnings: tuple[str, ...]


def build_plan(onnx: Path, plan: Path, options: BuildOptions | None = None) -> BuildReport:
    """Build `plan` from `onnx`; the file appears whole or not at all.

    Raises:
        EngineUnavailableError: when the library or a driver is missing.
        EngineError: when the graph, a profile or an option cannot be built, and why.
    """
    options = options or BuildOptions()
    if not onnx.is_file():
        raise EngineError(f"{onnx}: no such ONNX file")
    library = find_library(options.library)
    check_options(options, library)
    return _Build(library, onnx, options).write(plan)


class _Build:
    """One build; TensorRT's objects live as long as it."""

    def __init__(self, library: Library, onnx: Path, options: BuildOptions) -> None:
        self.library, self.trt, self.onnx, self.options = library, library.module, onnx, options
        self.log = make_logger(self.trt)
        self.builder = self.trt.Builder(self.log)
        flags = 1 << int(self.trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
        self.network = self.builder.create_network(flags)
        self._parse()
        self.contents = walk(self.network)
        self.config = self.builder.create_builder_config()

    def write(self, plan: Path) -> BuildReport:
        self._targets()
        self._flags()
        self._profiles()
        decomposed = self._attention()
        began = time.perf_counter()
        built = self.builder.build_serialized_network(self.network, self.config)
        if built is None and self._lacks_kernel():
            decomposed = self._decompose(lambda layer: True)
            built = self.builder.build_serialized_network(self.network, self.config)
        took = time.perf_counter() - began
        if built is None:
            raise EngineError(f"{self.onnx}: {self.library} cannot build it: {self.log.last()}")
        self._keep_timings()
        content, weights = memoryview(built), self.onnx.parent / WEIGHTS
        write_bytes(plan, content)
        return BuildReport(
            library=self.library.name,
            version=self.library.version,
            capabilities=self._capabilities() or ("device",),
            contents=self.contents,
            profiles=tuple(profile.name for profile in self.options.profiles),
            plan_bytes=content.nbytes,
            plan_sha256=hashlib.sha256(content).hexdigest(),
            onnx_sha256=sha256(self.onnx),
            weights_sha256=sha256(weights) if weights.is_file() else "",
            version_compatible=self.options.version_compatible,
            build_s=took,
            decomposed_attention=decomposed,
            warnings=tuple(self.log.warnings),
        )

    def _parse(self) -> None:
        parser = self.trt.OnnxParser(self.network, self.log)
        if parser.parse_from_file(str(self.onnx)):
            return
        errors = [parser.get_error(i) for i in range(parser.num_errors)]
        raise EngineError(f"{self.onnx}: {self.library} {_explain(errors)}")

    def _capabilities(self) -> tuple[str, ...]:
        if self.library.name == TENSORRT:
            return ()
        return self.options.capabilities or default_capabilities(self.library)

    def _targets(self) -> None:
        names = self._capabilities()
        if not names:
            return
        self.config.num_compute_capabilities = len(names)
        for index, name in enumerate(names):
            kind = getattr(self.trt.ComputeCapability, name)
            if not self.config.set_compute_capability(kind, index):
                raise EngineError(f"{self.library} refuses {name}: {self.log.last()}")

    def _flags(self) -> None:
        options, config, trt = self.options, self.config, self.trt
        wanted = {
            "VERSION_COMPATIBLE": options.version_compatible,
            "WEIGHT_STREAMING": options.weight_streaming,
            "REFIT": options.refit or options.strip,
            "STRIP_PLAN": options.strip,
        }
        for name, on in wanted.items():
            if on:
                config.set_flag(getattr(trt.BuilderFlag, name))
        if options.workspace_bytes is not None:
            config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_bytes)
        if options.optimization_level is not None:
            config.builder_optimization_level = options.optimization_level
        if options.timing_cache is not None:
            known = options.timing_cache.read_bytes() if options.timing_cache.is_file() else b""
            # Another device's timings are refused by TensorRT itself, which says so.
            config.set_timing_cache(config.create_timing_cache(known), False)

    def _profiles(self) -> None:
        check_profiles(self.contents.inputs, self.options.profiles, str(self.onnx))
        for each in self.options.profiles:
            profile = self.builder.create_optimization_profile()
            for name, (least, usual, most) in each.shapes.items():
                profile.set_shape(name, least, usual, most)
            for name, (least, usual, most) in each.values.items():
                profile.set_shape_input(name, list(least), list(usual), list(most))
            if self.config.add_optimization_profile(profile) < 0:
                raise EngineError(f"{self.onnx}: profile {each.name}: {self.log.last()}")

    def _attention(self) -> int:
        """Let attention be computed from its parts where that was asked for, or nothing else is."""
        wanted = self.options.decompose_attention
        if wanted is False:
            return 0
        rtx = self.library.name == TENSORRT_RTX
        return self._decompose(
            lambda layer: wanted or (rtx and dtype_name(layer.get_input(0).dtype) == "float32")
        )

    def _decompose(self, which: Callable[[Any], bool]) -> int:
        count = 0
        if not hasattr(self.trt, "IAttentionInputLayer"):
            return count
        for layer in self._attention_layers():
            if which(layer):
                layer.attention.decomposable = True
                count += 1
        return count

    def _lacks_kernel(self) -> bool:
        """It failed because some attention, of an unusual head width, has no fused kernel."""
        free = self.options.decompose_attention is None
        return free and any(_NO_KERNEL in error for error in self.log.errors)

    def _attention_layers(self) -> Iterator[Any]:
        for index in range(self.network.num_layers):
            layer = self.network.get_layer(index)
            if str(layer.type).endswith("ATTENTION_INPUT"):
                # The bindings hand out the base class; this is how they let one reach the rest.
                layer.__class__ = self.trt.IAttentionInputLayer
                yield layer

    def _keep_timings(self) -> None:
        if self.options.timing_cache is not None:
            write_bytes(
                self.options.timing_cache, memoryview(self.config.get_timing_cache().serialize())
            )


def default_capabilities(library: Library) -> tuple[str, ...]:
    """What a plan is built for when nobody says: Ampere and newer.

    Turing has no float32 matrix product in TensorRT-RTX, and attention rows are computed in it.
    """
    return tuple(name for name in library.capabilities if int(name[2:]) >= OLDEST_CAPABILITY)


def check_profiles(inputs: Sequence[Tensor], profiles: Sequence[Profile], where: str) -> None:
    """Refuse profiles that do not fit a graph: too few, unknown inputs, other ranks, empty ranges.

    Raises:
        EngineError: saying which input and what it needs.
    """
    moving = [t for t in inputs if not t.static or t.decides_shapes]
    if moving and not profiles:
        names = ", ".join(f"{tensor.name} ({tensor})" for tensor in moving)
        raise EngineError(f"{where}: {names} may change, so a profile must say how far")
    if profiles and not moving:
        raise EngineError(f"{where}: every input is static, leave the profiles out")
    known = {tensor.name: tensor for tensor in inputs}
    for profile in profiles:
        for kind, ranges in (("shape", profile.shapes), ("value", profile.values)):
            for name, (least, usual, most) in ranges.items():
                rank = _rank(known, name, kind, where)
                sizes = zip(least, usual, most, strict=True)
                if not len(least) == len(usual) == len(most) == rank:
                    raise EngineError(f"{where}: {kind} of {name} has {rank} number(s) per bound")
                if not all(a <= b <= c for a, b, c in sizes):
                    raise EngineError(
                        f"{where}: {kind} of {name} in profile {profile.name} is "
                        f"{least}, {usual}, {most}: give least, usual, most in this order"
                    )
        given = profile.shapes.keys() | profile.values.keys()
        missing = [tensor.name for tensor in moving if tensor.name not in given]
        if missing:
            raise EngineError(f"{where}: profile {profile.name} says nothing of {missing[0]}")


def _rank(known: dict[str, Tensor], name: str, kind: str, where: str) -> int:
    if name not in known:
        have = ", ".join(known)
        raise EngineError(f"{where}: a profile names input {name!r}, the graph has {have}")
    tensor = known[name]
    if kind == "value" and not tensor.decides_shapes:
        raise EngineError(f"{where}: the value of {name} decides no shape, give its shape")
    return max(1, *tensor.shape) if kind == "value" and tensor.shape else len(tensor.shape) or 1


def make_logger(trt: Any) -> Any:
    """A logger that remembers instead of printing; TensorRT wants one made from its own class."""

    class Memory(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []
            self.warnings: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            kept = " ".join(str(message).split())
            if severity in (trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR):
                self.errors.append(kept)
            elif severity == trt.ILogger.WARNING:
                self.warnings.append(kept)

        def last(self) -> str:
            return self.errors[-1] if self.errors else "it does not say why"

    return Memory()


def write_bytes(path: Path, content: memoryview) -> None:
    """Write a file that a reader sees whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    try:
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def _explain(errors: Sequence[Any]) -> str:
    """What the parser could not read, with a remedy where there is a known one."""
    if not errors:
        return "cannot parse it and does not say why"
    operators = sorted({str(error.node_operator()) for error in errors} - {""})
    said = "; ".join(dict.fromkeys(str(error.desc()) for error in errors))
    text = f"cannot read {', '.join(operators) or 'it'}: {said}"
    if any(name in text for name in _DYNAMIC_INT8):
        text += (
            "; dynamic int8 is ONNX Runtime's alone, quantise with QuantizeLinear and "
            "DequantizeLinear or with MatMulNBits"
        )
    return text
