"""A checkpoint folder of the OpenVLA family to an engine folder."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from engines.errors import EngineError
from engines.export import OPSET, Blueprint, write_engine
from engines.precision import PRECISIONS
from policy.openvla.checkpoint import load_tensors, weights_sha256
from policy.openvla.config import load_config
from policy.openvla.engine.packaged import ASSETS
from policy.openvla.engine.plan import make_plan
from policy.openvla.sequence import layout_of
from pruning.onnx import translations

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch import Tensor

    from engines.graph import Products
    from engines.manifest import Manifest
    from engines.precision import Precision
    from engines.stage import StageModule
    from policy.openvla.config import OpenVLAConfig
    from policy.openvla.model import OpenVLAModel

FAMILY = "openvla"
PROMPT_TOKENS = 32


def export_policy(
    checkpoint: Path,
    out: Path,
    *,
    methods: Sequence[str],
    keeps: Sequence[float],
    precision: str = "fp32",
    prompt_tokens: int = PROMPT_TOKENS,
    opset: int = OPSET,
    fused: bool = False,
    policy: str = "",
    rebuild: str = "",
    ranges: Ranges | None = None,
    products: Products | None = None,
    progress: Callable[[str], None] = lambda step: None,
) -> Manifest:
    """Write an engine; it is not compared with its model yet (`verify.py` does).

    Weights go from the checkpoint's files to the engine's one by one.

    Args:
        checkpoint: folder in the published layout.
        out: engine folder; replaced when it is one already.
        methods: pruning methods, with options after colons, or `all` that can be graphs.
        keeps: ratios of visual tokens that live; the dense model is always there.
        precision: a name of `PRECISIONS`.
        prompt_tokens: longest prompt without BOS; shorter ones are padded to it.
        opset: version of the ONNX operators.
        fused: one graph per rung between vision and head, instead of one per stretch and choice.
        policy: how the checkpoint was named, for the manifest.
        rebuild: command that makes this engine, for messages.
        ranges: measured on recorded observations (`calibrate.py`), for a calibrated precision.
        products: rewrites products with weights, instead of what the precision says.
        progress: told what is being done.

    Raises:
        EngineError: for an unknown precision, an impossible method, or a folder of something else.
        CheckpointError: for a damaged or contradictory checkpoint.
    """
    kind = check_precision(precision, calibrated=ranges is not None)
    config = _fitting_config(checkpoint, prompt_tokens)
    plan = make_plan(config, methods, keeps, prompt_tokens, kind.wire, fused=fused)
    network = _FakeNetwork(config, kind.base)
    blueprint = Blueprint(
        family=FAMILY,
        policy=policy or str(checkpoint),
        policy_sha256=weights_sha256(checkpoint),
        precision=precision,
        prompt_tokens=prompt_tokens,
        rebuild=rebuild or f"leanvla export --policy {checkpoint} --out {out}",
        stages={name: network.bind(make) for name, make in plan.stages.items()},
        rungs=plan.rungs,
        assets={f"policy/{name}": checkpoint / name for name in ASSETS},
        opset=opset,
        translations=translations(),
        products=products,
        ranges={} if ranges is None else ranges.by_weight,
        calibration="" if ranges is None else ranges.source,
    )
    return write_engine(out, blueprint, _weights(checkpoint, config, prompt_tokens), progress)


class Ranges(NamedTuple):
    """Ranges of activations.

    Attributes:
        by_weight: largest absolute value of the activation that a weight multiplies.
        source: what they were measured on, in words.
    """

    by_weight: dict[str, float]
    source: str


def check_precision(name: str, *, calibrated: bool) -> Precision:
    """What a name of a precision means.

    Raises:
        EngineError: for an unknown name, or ranges that are missing or of no use.
    """
    if name not in PRECISIONS:
        raise EngineError(f"unknown precision {name!r}: choose from {', '.join(PRECISIONS)}")
    found = PRECISIONS[name]
    if found.calibrated and not calibrated:
        raise EngineError(
            f"precision {name} needs ranges measured on recorded observations: give --calibrate a "
            "suite or a recording"
        )
    if calibrated and not found.calibrated:
        raise EngineError(f"precision {name} is not calibrated: leave --calibrate out")
    return found


def _fitting_config(checkpoint: Path, prompt_tokens: int) -> OpenVLAConfig:
    """The checkpoint's configuration, whose decoder must read prompts of this length."""
    config = load_config(checkpoint)
    if prompt_tokens < 1:
        raise EngineError(f"prompt_tokens is {prompt_tokens}: give 1 or more")
    layout, most = layout_of(config, prompt_tokens), config.text.max_position_embeddings
    length = layout.length + (0 if layout.actions else config.dof - 1)
    if length > most:
        raise EngineError(
            f"prompt_tokens is {prompt_tokens}: sequences of {length} tokens, the decoder reads "
            f"{most}: give {prompt_tokens - (length - most)} or fewer"
        )
    return config


class _FakeNetwork:
    """The network without memory, made once, under the exporter's fake tensors."""

    def __init__(self, config: OpenVLAConfig, dtype: str) -> None:
        self.config, self.dtype = config, dtype
        self.model: OpenVLAModel | None = None

    def bind(self, make: Callable[[OpenVLAModel], StageModule]) -> Callable[[], StageModule]:
        """A stage that is made when asked."""

        def made() -> StageModule:
            with _default_type(self.dtype):
                return make(self._network())

        return made

    def _network(self) -> OpenVLAModel:
        if self.model is None:
            from policy.openvla.model import OpenVLAModel

            self.model = OpenVLAModel(self.config).eval().requires_grad_(False)
        return self.model


@contextlib.contextmanager
def _default_type(name: str) -> Iterator[None]:
    """Parameters made within this context have the given type."""
    import torch

    before = torch.get_default_dtype()
    torch.set_default_dtype(getattr(torch, name))
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _weights(
    checkpoint: Path, config: OpenVLAConfig, prompt_tokens: int
) -> Callable[[str], Tensor]:
    """Weights by name: the checkpoint's, memory-mapped, and the table of rotary phases."""
    from policy.openvla.engine.stages import RopeTable, table_length

    tensors = load_tensors(checkpoint)
    length = table_length(config, layout_of(config, prompt_tokens))
    tables = RopeTable.values(config.text, length)

    def weight(name: str) -> Tensor:
        try:
            return tables[name] if name in tables else tensors[name]
        except KeyError:
            raise EngineError(
                f"{checkpoint}: tensor {name} is missing: config and weights do not belong together"
            ) from None

    return weight
